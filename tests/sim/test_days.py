"""The real controllers and scheduler through days of seeded faults, and bugs these days find."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from karez.core.metrics import (
    ENDED,
    QUEUE_TIME,
    RECOVERIES,
    RECOVERY_PHASE,
    SCHEDULING_TIME,
    START_TIME,
)
from karez.core.nodes import NodeId
from karez.core.ports import NodeLost
from karez.core.processes import Poll
from karez.core.workloads import State, WorkloadId
from karez.node_events.hub import NodeEventHub
from karez.server.controllers import reconciler
from karez.server.controllers.pending_decisions import PendingDecisions
from karez.server.controllers.workload_controllers import WorkloadControllers
from karez.serving.replica_controller import ReplicaController
from tests.sim.days import Days
from tests.sim.fake_cloud import HOUR_S, FakeCloud

SEEDS = (1, 2, 3)


@pytest.fixture
def make_cloud(tmp_path: Path) -> Iterator[Callable[..., FakeCloud]]:
    made: list[FakeCloud] = []

    def make(**more: Any) -> FakeCloud:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(FakeCloud(folder, **more))
        return made[-1]

    yield make
    for cloud in made:
        cloud.close()


def through(cloud: FakeCloud, seed: int, *, days: float, faults: int) -> Days:
    """All jobs end well, the service is ready, and nothing is left."""
    run = Days(cloud, seed)
    run.run(days, faults)
    run.finish()
    return run


def all_seeds(make_cloud: Callable[..., FakeCloud]) -> None:
    for seed in SEEDS:
        through(make_cloud(), seed, days=2, faults=40)


def test_a_job_goes_on_from_its_step_when_a_rank_is_killed(
    make_cloud: Callable[..., FakeCloud],
) -> None:
    cloud = make_cloud()
    job = cloud.submit(ranks=2, steps=10)
    cloud.run(5.5 * HOUR_S)
    cloud.kill(cloud.living(job)[0])
    cloud.run_until_ended(job)
    assert cloud.state(job) == State.SUCCEEDED
    (receipt,) = cloud.store.history.receipts(job)
    assert (receipt.rung, receipt.step_restored) == ("in-place", 5)
    shown = cloud.metrics.registry.get_sample_value
    assert shown(RECOVERIES, {"code": "exit", "rung": "in-place"}) == 1
    took_s = shown(f"{RECOVERY_PHASE}_sum", {"phase": "total", "rung": "in-place"})
    assert took_s == pytest.approx(receipt.resumed_at - receipt.detected_at)
    assert shown(ENDED, {"reason": "done"}) == 1
    assert shown(f"{START_TIME}_count", {"kind": "train"}) == 1
    assert shown(f"{QUEUE_TIME}_count", {"kind": "job", "priority": "0"}) == 1
    assert (shown(f"{SCHEDULING_TIME}_count") or 0) > 1
    cloud.check_empty()


def test_a_database_that_fails_once_leaves_no_job_without_a_controller(
    make_cloud: Callable[..., FakeCloud], monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = make_cloud()

    def fail(_: WorkloadId) -> None:
        raise RuntimeError("the database is locked")

    with monkeypatch.context() as broken:
        broken.setattr(cloud.store.workloads, "find", fail)
        cloud.submit(ranks=2, steps=1)  # placed and claimed, and then it fails
    cloud.look()
    cloud.look()
    cloud.run_until_ended("job-1")
    assert cloud.state("job-1") == State.SUCCEEDED


def test_half_a_day_of_faults(make_cloud: Callable[..., FakeCloud]) -> None:
    through(make_cloud(), SEEDS[0], days=0.5, faults=12)


@pytest.mark.story
def test_two_days_of_faults(make_cloud: Callable[..., FakeCloud]) -> None:
    all_seeds(make_cloud)


@pytest.mark.deep
def test_thirty_days_with_five_hundred_faults(make_cloud: Callable[..., FakeCloud]) -> None:
    run = through(make_cloud(step_s=2 * HOUR_S), 11, days=30, faults=500)
    assert len(run.caused) > 400
    assert len(run.jobs) > 20


def start_too_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PendingDecisions, "waits_for", lambda self, start: False)
    monkeypatch.setattr(reconciler, "are_free", lambda grants, held: True)


def keep_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorkloadControllers, "_pass_on_requests", lambda self: None)


def forget_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReplicaController, "_crashed", lambda self, replica, info, now: None)


def overlook_restarted_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    deliveries = NodeEventHub._deliveries

    def forgetful(hub: NodeEventHub, node: NodeId, poll: Poll) -> list[Callable[[], None]]:
        return deliveries(hub, node, replace(poll, boot_ids={}))

    monkeypatch.setattr(NodeEventHub, "_deliveries", forgetful)


PLANTED = (overlook_restarted_agents, start_too_soon, keep_requests, forget_crashes)
"""Bugs in the hub of the job controllers, the scheduler, the claims, and the replica controller."""


@pytest.mark.story
@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_the_same_days_find_bugs_that_were_planted(
    make_cloud: Callable[..., FakeCloud],
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[pytest.MonkeyPatch], None],
) -> None:
    plant(monkeypatch)
    with pytest.raises((AssertionError, NodeLost)):
        all_seeds(make_cloud)
