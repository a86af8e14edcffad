"""Run the command line in this process against the real API on loopback."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from karez.cli.client_options import client
from karez.cli.main import main
from tests.api import Api


@dataclass
class Done:
    """Output and exit code of a command."""

    code: int
    out: str
    err: str


Karez = Callable[..., Done]


@pytest.fixture
def point(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str, str], None]]:
    """Point the command line at an address with a key."""
    monkeypatch.setenv("KAREZ_HOME", str(tmp_path / "nobody"))

    def at(url: str, key: str) -> None:
        forget()
        monkeypatch.setenv("KAREZ_URL", url)
        monkeypatch.setenv("KAREZ_KEY", key)

    yield at
    forget()


def forget() -> None:
    """Close the client that commands of this process share."""
    if client.cache_info().currsize:
        client().close()
    client.cache_clear()


@pytest.fixture
def karez(
    api: Api, url: str, point: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> Karez:
    """Run a command as an admin, or with another key."""

    def run(*words: str, key: str = "") -> Done:
        if os.environ.get("KAREZ_KEY") != (key or api.admin):
            point(url, key or api.admin)
        with pytest.raises(SystemExit) as end:
            main(words)
        printed = capsys.readouterr()
        return Done(code=int(end.value.code or 0), out=printed.out, err=printed.err)

    return run
