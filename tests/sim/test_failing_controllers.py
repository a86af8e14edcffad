"""Controllers that fail again and again, and rows that cannot be read: one harms no other."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from karez.core.errors import Unreachable
from karez.core.workloads import EndReason, State, WorkloadId
from karez.server.controllers.failed_controllers import LIMIT
from karez.store.schema import workloads
from karez.training.controller.job_controller import JobController
from tests.sim.fake_cloud import HOUR_S, FakeCloud


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[FakeCloud]:
    made = FakeCloud(tmp_path, nodes=("a", "b"))
    made.look_every(60.0)
    yield made
    made.close()


def break_controllers_of(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> list[str]:
    """Every step of this job's controllers fails from now on; the list grows with each."""
    failed, step = [], JobController.step

    def fail(self: JobController) -> float | None:
        if self.status.job.id != name:
            return step(self)
        failed.append(name)
        raise error

    monkeypatch.setattr(JobController, "step", fail)
    return failed


def test_a_controller_that_always_fails_gives_the_devices_back_and_says_why(
    cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = cloud.submit(ranks=4, steps=9), cloud.submit(ranks=4, steps=1)
    cloud.run(HOUR_S / 2)
    failed = break_controllers_of(monkeypatch, bad, ValueError("a message is wrong"))
    cloud.manager.controllers.wake(WorkloadId(bad))
    cloud.run(900.0)
    ended = cloud.job(bad)
    assert (ended.state, ended.status.end) == (State.FAILED, EndReason.START_FAILED)
    assert "ValueError: a message is wrong" in ended.status.reason
    assert len(failed) == LIMIT
    cloud.run_until_ended(good)
    assert cloud.state(good) == State.SUCCEEDED
    cloud.check_empty()


def test_one_that_is_being_cancelled_is_cancelled(
    cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = cloud.submit(ranks=2, steps=9)
    cloud.run(HOUR_S / 2)
    break_controllers_of(monkeypatch, bad, RecursionError("too deep"))
    cloud.stop(bad)
    cloud.run(900.0)
    assert cloud.state(bad) == State.CANCELLED
    cloud.check_empty()


def test_a_store_that_is_away_ends_no_workload(
    cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = cloud.submit(ranks=2, steps=1)
    away = Unreachable(what_is_it="The database", address="here")
    with monkeypatch.context() as outage:
        failed = break_controllers_of(outage, job, away)
        cloud.manager.controllers.wake(WorkloadId(job))
        cloud.run(1800.0)
        assert len(failed) > LIMIT
    cloud.run_until_ended(job)
    assert cloud.state(job) == State.SUCCEEDED


@pytest.mark.parametrize("column", ["spec", "status"])
def test_a_row_that_cannot_be_read_fails_alone(cloud: FakeCloud, column: str) -> None:
    runs = cloud.submit(ranks=4, steps=2)
    waits, bad = cloud.submit(ranks=8, steps=1), cloud.submit(ranks=8, steps=1)
    change = update(workloads).values({column: '{"name": NaN'})
    with cloud.store.db.write() as tx:
        tx.execute(change.where(workloads.c.id.in_([bad])))
    assert {job.id for job in cloud.store.workloads.jobs(projects=None)} == {runs, waits, bad}
    cloud.kill_control()  # nothing was read before
    cloud.run_until_ended(bad)
    ended = cloud.job(bad)
    assert ended.state == State.FAILED
    assert "cannot be read" in ended.status.reason
    cloud.run_until_ended(runs, waits)
    assert {cloud.state(runs), cloud.state(waits)} == {State.SUCCEEDED}


def test_an_active_row_that_cannot_be_read_gives_its_devices_back(cloud: FakeCloud) -> None:
    bad = cloud.submit(ranks=8, steps=9)
    cloud.run(HOUR_S / 2)
    with cloud.store.workloads._db.write() as tx:
        tx.execute(update(workloads).where(workloads.c.id == bad).values(spec="{}"))
    cloud.kill_control()
    other = cloud.submit(ranks=8, steps=1)
    cloud.run_until_ended(other)
    assert cloud.state(other) == State.SUCCEEDED
    assert cloud.state(bad) == State.FAILED
    cloud.check_empty()
