"""What was decided and waits for others outlives control, failed writes, and who never yields."""

import pytest

from karez.core.errors import StorageFull
from karez.core.gangs import GangSpec
from karez.core.jobs import Job, JobSpec
from karez.core.nodes import NodeId, NodeState
from karez.core.workloads import State, Status, WorkloadId, WorkloadKind
from karez.server.controllers.pending_decisions import GRACE_S, RESIZE_S
from karez.server.controllers.scheduler import Scheduler
from karez.store.sql import SqlStore
from tests.fakes import FakeClock, cpu_node
from tests.server.queued import HOUR_S, run, state, submit


def test_the_next_control_goes_on_with_what_was_decided(store: SqlStore) -> None:
    clock = FakeClock(at=1000.0)
    first = Scheduler(store, clock)
    for name in ("one", "two"):
        submit(store, name, 2, 1000.0, preemptible=True, kind=WorkloadKind.TRAIN)
    assert first.tick() == 2
    tokens = dict(store.workloads.claim([State.PLACED], owner="c", now=1000.0, lease_s=1e9))
    for ident, token in tokens.items():
        assert store.workloads.update(ident, token=token, state=State.RUNNING, at=1000.0)
    clock.at += 10.0
    submit(store, "high", 2, clock.at, priority=5)
    assert first.tick() == 0
    (yields,) = (name for name in tokens if state(store, name) == State.PREEMPTING)
    second = Scheduler(store, clock)
    submit(store, "higher", 2, clock.at, priority=9)  # the devices that get free are promised
    assert second.tick() == 0
    assert {state(store, name) for name in tokens} == {State.PREEMPTING}
    kept = Status(ran_s=10.0)
    assert store.workloads.requeue(yields, tokens[yields], kept, now=clock.at)
    assert second.tick() == 1
    assert (state(store, "high"), state(store, "higher")) == (State.PLACED, State.QUEUED)


def test_a_promise_on_a_node_that_drains_meanwhile_is_given_up(store: SqlStore) -> None:
    clock = FakeClock(at=1000.0)
    first = Scheduler(store, clock)
    submit(store, "low", 4, 1000.0, preemptible=True)
    assert first.tick() == 1
    token = run(store, "low", 1000.0)
    submit(store, "high", 4, 1001.0, priority=5)
    assert first.tick() == 0
    store.pool.record_nodes([cpu_node("b", 4)], now=1.0)
    assert store.pool.set_node(NodeId("a"), NodeState.DRAINING)
    clock.at += 10.0
    assert Scheduler(store, clock).tick() == 1
    assert store.workloads.allocations()[WorkloadId("high")].grants[0].node == "b"
    assert state(store, "low") == State.PREEMPTING
    assert store.workloads.requeue(WorkloadId("low"), token, Status(), now=clock.at)


def test_pending_decisions_that_cannot_be_read_are_decided_anew(store: SqlStore) -> None:
    clock = FakeClock(at=1000.0)
    store.scheduler.save_pending_decisions('{"starts": 5}')
    submit(store, "job", 4, 1000.0)
    assert Scheduler(store, clock).tick() == 1
    assert state(store, "job") == State.PLACED


def growing(store: SqlStore, clock: FakeClock) -> str:
    """A gang of one that was asked to grow over the whole node; the token of its lease."""
    gang = GangSpec(min=1, want=1, max=4)
    spec = JobSpec(name="e", command=("true",), gang=gang, kind=WorkloadKind.TRAIN)
    store.workloads.add_job(Job(id=WorkloadId("e"), spec=spec, owner="me", created_at=clock.at))
    scheduler = Scheduler(store, clock)
    assert scheduler.tick() == 1
    token = run(store, "e", clock.at)
    clock.at += HOUR_S
    scheduler.tick()
    assert store.resize_requests.ids() == {"e"}
    return token


def test_a_request_for_another_size_is_renewed_when_control_comes_back_late(
    store: SqlStore,
) -> None:
    clock = FakeClock(at=1000.0)
    token = growing(store, clock)
    clock.at += 10 * HOUR_S
    later = Scheduler(store, clock)
    later.tick()
    submit(store, "new", 3, clock.at)
    later.tick()
    clock.at += 10.0
    later.tick()
    grants = store.resize_requests.requested(WorkloadId("e")) or ()
    held = store.workloads.allocations()
    if "new" not in held:  # then nobody has been given what the gang may still take
        assert store.workloads.regrant(WorkloadId("e"), token, tuple(grants), now=clock.at)
    else:
        assert len(grants) == 1


def test_a_request_that_a_gang_does_not_take_is_withdrawn_before_others_get_the_devices(
    store: SqlStore,
) -> None:
    clock = FakeClock(at=1000.0)
    growing(store, clock)
    scheduler = Scheduler(store, clock)
    scheduler.tick()
    clock.at += RESIZE_S + 1
    scheduler.tick()
    assert store.resize_requests.ids() == set()
    clock.at += GRACE_S
    submit(store, "new", 3, clock.at)
    assert scheduler.tick() == 1


def test_a_decision_that_could_not_be_stored_is_made_again(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(at=1000.0)
    scheduler = Scheduler(store, clock)
    submit(store, "low", 4, 1000.0, preemptible=True)
    assert scheduler.tick() == 1
    run(store, "low", 1000.0)
    submit(store, "high", 4, 1001.0, priority=5)

    def fail(_: str) -> None:
        raise StorageFull(path="db")

    with monkeypatch.context() as broken:
        broken.setattr(store.scheduler, "save_pending_decisions", fail)
        with pytest.raises(StorageFull):
            scheduler.tick()
    assert state(store, "low") == State.RUNNING
    assert scheduler.tick() == 0
    assert state(store, "low") == State.PREEMPTING


def test_a_start_for_which_nobody_makes_room_is_decided_again(store: SqlStore) -> None:
    clock = FakeClock(at=1000.0)
    growing(store, clock)
    grown = Scheduler(store, clock)
    tokens = store.workloads.leased("c")
    grants = store.resize_requests.requested(WorkloadId("e")) or ()
    token = tokens[WorkloadId("e")][0]
    assert store.workloads.regrant(WorkloadId("e"), token, tuple(grants), now=clock.at)
    store.resize_requests.drop(WorkloadId("e"))
    grown.tick()
    clock.at += HOUR_S
    submit(store, "waits", 3, clock.at)
    assert grown.tick() == 0
    assert store.resize_requests.ids() == {"e"}  # it is to become smaller, and never does
    clock.at += RESIZE_S + GRACE_S + 1
    store.pool.record_nodes([cpu_node("b", 4)], now=1.0)
    for _ in range(2):
        clock.at += 10.0
        grown.tick()
    assert store.workloads.allocations()[WorkloadId("waits")].grants[0].node == "b"
