"""The examples of docs/sdk.md run against the real API."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from karez.core.workloads import State, Status
from karez.server.services.cloud import Cloud
from tests.api import Api

PAGE = (Path(__file__).parents[2] / "docs" / "sdk.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def ended(api: Api) -> Iterator[None]:
    """Every job that is queued ends well, soon."""
    stop = threading.Event()
    thread = threading.Thread(target=end_jobs, args=(api.cloud, stop))
    thread.start()
    yield
    stop.set()
    thread.join()


def end_jobs(cloud: Cloud, stop: threading.Event) -> None:
    jobs = cloud.store.workloads
    while not stop.wait(0.05):
        for ident, token in jobs.claim([State.QUEUED], owner="t", now=1000.0, lease_s=60.0):
            assert jobs.end(ident, token, State.SUCCEEDED, Status(), now=1001.0)


@pytest.mark.usefixtures("ended")
@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_examples_run_as_they_are(
    api: Api,
    url: str,
    example: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "my-code").mkdir()
    (tmp_path / "my-code" / "train.py").write_text("print('hi')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAREZ_URL", url)
    monkeypatch.setenv("KAREZ_KEY", api.admin)
    exec(compile(example, "sdk.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out


def test_the_page_names_every_method() -> None:
    from karez.client.sdk import Client
    from tests.client.test_parity import PLAIN

    with Client("http://cloud", "k") as client:
        methods = {name for name in dir(client) if not name.startswith("_")}
    for name in methods - PLAIN - {"close", "call"}:
        assert f"`{name}`" in PAGE, name
    assert len(EXAMPLES) == 3
