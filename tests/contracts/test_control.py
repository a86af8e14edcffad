"""Control is killed at random moments of submits, runs, deploys and stops: nothing is lost."""

import contextlib
import os
import signal
import time
from pathlib import Path
from random import Random

import httpx
import psutil
import pytest

from karez.client import calls
from karez.core.artifacts import ArtifactKind
from karez.core.jobs import Job
from karez.core.resource_requests import ResourceRequest
from karez.core.services import Service, ServiceSpec
from karez.core.workloads import State
from tests import postgres
from tests.contracts.cloud import Cloud, batch, make_cloud, until
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.story
KILLS = int(os.environ.get("KAREZ_TEST_KILLS", "6"))
"""How often control is killed; `make chaos` asks for 50."""
SERVICE_EVERY = 4
"""One service is deployed, and the one before it stopped, for each so many kills."""


def engines_of(cloud: Cloud) -> list[int]:
    """The processes that listen for models' requests: forks, known by where they write."""
    work = str(cloud.home / "node" / "work" / "svc-")
    found = []
    for process in cloud.family():
        with contextlib.suppress(psutil.Error):
            if process.cwd().startswith(work) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def ask(cloud: Cloud, model: str) -> int:
    """The status of one small request through the gateway."""
    key = (cloud.home / "admin.key").read_text()
    return httpx.post(
        f"{cloud.address()['gateway']}/chat/completions",
        headers={"Authorization": f"Bearer {key}"},
        json={
            "model": model,
            "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": 2,
        },
        timeout=30,
    ).status_code


def torture(cloud: Cloud, book: Path, *, kills: int, seed: int) -> None:
    """kill -9 of control at random moments of submits, runs, deploys and stops.

    Each job writes one line, once; each service has one engine for as long as it lives.
    """
    chance, count, killed = Random(seed), 3 * kills, 0
    model = write_tiny_model(book.parent.with_suffix(".gguf"))
    deployed: list[Service] = []
    with cloud.client() as client:
        client.upload(model, name="tiny", kind=ArtifactKind.MODEL, format="gguf")
        jobs: list[Job] = []
        for number in range(count):
            line = f"echo {number} >> {book}; sleep {chance.uniform(0.0, 0.6):.2f}"
            jobs.append(client.submit(batch(f"n{number}", "sh", "-c", line)))
            if number % 3 == 2:
                if killed % SERVICE_EVERY == 0:
                    each = (ResourceRequest(milli=100),)
                    spec = ServiceSpec(name=f"s{number}", model="tiny", each=each)
                    deployed.append(client.deploy(spec))
                    for old in deployed[-2:-1]:
                        client.call(calls.stop_service(old.id))
                time.sleep(chance.uniform(0.0, 0.8))
                os.kill(cloud.control(), signal.SIGKILL)
                killed += 1
                until(lambda: psutil.pid_exists(cloud.control()))
        for job in jobs:
            assert client.wait(job.id, limit_s=120).state == State.SUCCEEDED
        assert killed == kills
        last = deployed[-1]
        until(lambda: client.call(calls.service(last.id)).state == State.RUNNING)
        until(lambda: len(engines_of(cloud)) == 1)
        (view,) = client.call(calls.service(last.id)).status.ranks
        assert engines_of(cloud) == [view.pid]
        until(lambda: ask(cloud, last.spec.name) == 200)
        os.kill(cloud.control(), signal.SIGKILL)
        assert ask(cloud, last.spec.name) == 200  # the gateway needs no control to answer
        until(lambda: psutil.pid_exists(cloud.control()))
        client.call(calls.stop_service(last.id))
        until(lambda: client.call(calls.service(last.id)).state == State.CANCELLED)
        ended = [client.call(calls.service(one.id)).state for one in deployed]
        assert set(ended) == {State.CANCELLED}
        until(lambda: not engines_of(cloud))
        assert sorted(map(int, book.read_text().split())) == list(range(count))
        until(lambda: not client.allocations())
        names = [job.spec.name for job in client.jobs(limit=1000)]
        assert all(names.count(f"n{number}") == 1 for number in range(count))
    node_work = cloud.home / "node" / "work"
    until(lambda: not list(node_work.iterdir()))


def shared_book(folder: Path) -> Path:
    """A file in a folder that jobs of every project may write into."""
    (folder / "shared").mkdir()
    (folder / "shared").chmod(0o777)
    return folder / "shared" / "book"


def test_control_dies_again_and_again_and_no_job_is_lost_or_doubled(tmp_path: Path) -> None:
    book = shared_book(tmp_path)
    made = make_cloud(
        tmp_path / "home", KAREZ_PRELOAD="false", KAREZ_BIND_PATHS=f"{book.parent}:rw"
    )
    made.karez("up")
    try:
        torture(made, book, kills=KILLS, seed=11)
    finally:
        made.karez("down")


@pytest.mark.deep
def test_the_same_holds_on_postgresql(tmp_path: Path) -> None:
    if postgres.programs() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with postgres.server() as url:
        book = shared_book(tmp_path)
        bound = f"{book.parent}:rw"
        made = make_cloud(
            tmp_path / "home", KAREZ_DATABASE=url, KAREZ_PRELOAD="false", KAREZ_BIND_PATHS=bound
        )
        made.karez("up")
        try:
            torture(made, book, kills=KILLS, seed=12)
        finally:
            made.karez("down")
