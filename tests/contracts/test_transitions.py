"""Control itself is killed as soon as a transition of a recovery is written; the gang goes on."""

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import psutil
import pytest

from karez.client import calls
from karez.client.sdk import Client
from karez.core.gang_syntax import make_gang
from karez.core.jobs import Job, JobSpec
from karez.core.workloads import State, WorkloadId, WorkloadKind
from tests.contracts.cloud import Cloud, kill_rank, make_cloud, until

pytestmark = pytest.mark.alone
AT = [int(n) for n in os.environ.get("KAREZ_TEST_TRANSITIONS", "2,4,5").split(",")]
"""1 to 3: it starts (quiescing, resuming, running), 4 to 6: a rank is lost (the same), 7: drains,
8: it is done. `make chaos` asks for all."""
STEPS = 60


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    made = make_cloud(tmp_path_factory.mktemp("cloud") / "home")
    made.karez("up")
    yield made
    made.karez("down")


def submit(client: Client, name: str) -> Job:
    settings = {"steps": STEPS, "width": 64, "batch": 8, "pause_ms": 20.0}
    return client.submit(
        JobSpec(
            name=name,
            kind=WorkloadKind.TRAIN,
            recipe="chaos-workload",
            settings=settings,
            gang=make_gang("2", ["cpu=0.5"]),
        )
    )


def transitions(cloud: Cloud, job: str) -> int:
    """How many are written, read beside control, which may be dead."""
    with closing(sqlite3.connect(f"file:{cloud.home / 'karez.db'}?mode=ro", uri=True)) as database:
        query = "SELECT count(*) FROM transitions WHERE job = ?"
        return int(database.execute(query, (job,)).fetchone()[0])


def wait_for(cloud: Cloud, job: str, count: int) -> None:
    until(lambda: transitions(cloud, job) >= count, every_s=0.001)


def result(client: Client, job: Job) -> tuple[dict[tuple[int, int], str], object]:
    done = client.wait(job.id, limit_s=120)
    assert done.state == State.SUCCEEDED, done.status
    rows = client.call(calls.metrics(job.id, -1))
    weights = client.call(calls.artifact(done.status.outputs["weights"])).spec.facts
    return {(row.step, row.rank): row.loss.hex() for row in rows}, weights["weights_sha256"]


def kill_control(cloud: Cloud) -> None:
    os.kill(cloud.control(), signal.SIGKILL)
    until(lambda: psutil.pid_exists(cloud.control()))


def has_reached(client: Client, job: WorkloadId, step: int) -> bool:
    return client.job(job).status.step >= step


def test_control_dies_at_a_transition_and_nothing_is_lost(cloud: Cloud) -> None:
    with cloud.client() as client:
        calm = submit(client, "calm")
        want = result(client, calm)
        assert transitions(cloud, calm.id) == 5  # without a recovery
        for at in AT:
            job = submit(client, f"at-{at}")
            count = at
            if at > 3:
                until(partial(has_reached, client, job.id, 5))
                count = transitions(cloud, job.id) + at - 3
                kill_rank(client, job.id, 1)
            wait_for(cloud, job.id, count)
            kill_control(cloud)
            assert result(client, job) == want, f"control died at transition {at}"
            receipts = client.call(calls.receipts(job.id))
            assert at <= 3 or any(1 in receipt.ranks for receipt in receipts), f"{at}: {receipts}"
            assert all(receipt.steps_lost <= 1 for receipt in receipts)
            assert all(receipt.rung != "restart" for receipt in receipts)
