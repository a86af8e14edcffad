"""Whom the client tells the key of this host's cloud (H8)."""

import json
from pathlib import Path

import pytest

from karez.client.address import find_address
from karez.core import environment


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (environment.URL, environment.KEY, environment.GATEWAY):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(environment.HOME, str(tmp_path))
    (tmp_path / "admin.key").write_text("own\n")
    about = {"url": "http://127.0.0.1:7171", "gateway": "http://127.0.0.1:7181/v1", "pid": 0}
    (tmp_path / "cloud.json").write_text(json.dumps(about))
    return tmp_path


def test_its_own_cloud(home: Path) -> None:
    assert (find_address().url, find_address().key) == ("http://127.0.0.1:7171", "own")
    assert find_address("http://127.0.0.1:7171/").key == "own"
    (home / "cloud.json").unlink()
    assert find_address().key == "own"


def test_no_other_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home.is_dir()
    assert find_address("http://127.0.0.1:17330").key == ""
    with monkeypatch.context() as other:
        other.setenv(environment.URL, "http://elsewhere:7171")
        assert find_address().key == ""
        other.setenv(environment.KEY, "for-it")
        assert find_address().key == "for-it"
    with monkeypatch.context() as other:
        other.setenv(environment.GATEWAY, "http://elsewhere:7181/v1")
        assert find_address().key == ""
    assert find_address("http://elsewhere", "given").key == "given"
