"""The scheduling loop over a real store: preemption is asked for, waited for, and not repeated."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from karez.core.resources import Need
from karez.core.workloads import GangSpec, Job, JobSpec, State, Status, WorkloadId, WorkloadKind
from karez.server.scheduler import Scheduler
from karez.store.sql import SqlStore
from tests.fakes import FakeClock, cpu_node

HOUR_S = 3600.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    made = SqlStore(f"sqlite:///{tmp_path / 'k.db'}")
    made.pool.see_nodes([cpu_node("a", 4)], now=1.0)
    yield made
    made.close()


def submit(store: SqlStore, name: str, cores: int, at: float, **more: object) -> None:
    spec = JobSpec(
        name=name, command=("true",), gang=GangSpec(each=(Need(milli=1000 * cores),)), **more  # type: ignore[arg-type]
    )  # fmt: skip
    store.workloads.add_job(Job(id=WorkloadId(name), spec=spec, owner="me", created_at=at))


def state(store: SqlStore, name: str) -> State:
    found = store.workloads.job(name)
    assert found is not None
    return found.state


def run(store: SqlStore, name: str, at: float) -> str:
    """A foreman takes it and it runs; the token of its lease."""
    tokens = dict(store.workloads.claim([State.PLACED], owner="c", now=at, lease_s=1e9))
    token = tokens[WorkloadId(name)]
    assert store.workloads.update(WorkloadId(name), token=token, state=State.RUNNING, at=at)
    return token


def test_small_work_makes_a_large_job_yield_and_go_on_behind_it(store: SqlStore) -> None:
    clock = FakeClock(at=1000.0)
    scheduler = Scheduler(store, clock)
    submit(store, "large", 4, 1000.0, preemptible=True, kind=WorkloadKind.TRAIN)
    assert scheduler.tick() == 1
    token = run(store, "large", 1000.0)
    clock.at += 10 * HOUR_S
    submit(store, "small", 1, clock.at)
    for _ in range(3):
        assert scheduler.tick() == 0
        assert state(store, "large") == State.YIELDING
    waits = store.workloads.job("small")
    assert waits is not None
    assert waits.state == State.QUEUED
    assert waits.status.reason
    kept = Status(step=7, ran_s=10 * HOUR_S)
    assert store.workloads.requeue(WorkloadId("large"), token, kept, now=clock.at)
    assert scheduler.tick() == 1
    assert state(store, "small") == State.PLACED
    assert state(store, "large") == State.QUEUED  # it stands behind: it has run for long


def test_who_did_not_opt_in_is_left_alone(store: SqlStore) -> None:
    clock = FakeClock(at=1000.0)
    scheduler = Scheduler(store, clock)
    submit(store, "large", 4, 1000.0)
    assert scheduler.tick() == 1
    run(store, "large", 1000.0)
    clock.at += 10 * HOUR_S
    submit(store, "small", 1, clock.at)
    assert scheduler.tick() == 0
    assert state(store, "large") == State.RUNNING


def test_priority_alone_makes_room_too(store: SqlStore) -> None:
    clock = FakeClock(at=1000.0)
    scheduler = Scheduler(store, clock)
    submit(store, "low", 4, 1000.0, preemptible=True)
    assert scheduler.tick() == 1
    run(store, "low", 1000.0)
    submit(store, "high", 4, 1001.0, priority=5)
    assert scheduler.tick() == 0
    assert state(store, "low") == State.YIELDING
