"""The scheduling loop over a real store: preemption is asked for, waited for, and not repeated."""

from collections import Counter
from dataclasses import replace
from random import Random

from structlog.testing import capture_logs

from karez.core.device_prices import DevicePrice
from karez.core.gangs import GangSpec
from karez.core.identity import Project, ProjectLimits
from karez.core.jobs import Job, JobSpec
from karez.core.nodes import MaintenanceWindow, NodeId, NodeState
from karez.core.resource_requests import ResourceRequest
from karez.core.workloads import State, Status, WorkloadId, WorkloadKind
from karez.server.controllers.pending_decisions import GRACE_S, LENT_S, RESIZE_S
from karez.server.controllers.scheduler import Scheduler
from karez.simulation.verify_log import verify_log
from karez.store.sql import SqlStore
from tests.fakes import FakeClock, cpu_node
from tests.server.queued import HOUR_S, run, state, submit

HOUR_RATE = 2_000_000


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
        assert state(store, "large") == State.PREEMPTING
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
    assert state(store, "low") == State.PREEMPTING


def test_each_decision_is_a_line_in_the_log(store: SqlStore) -> None:
    clock = FakeClock(at=1000.0)
    scheduler = Scheduler(store, clock)
    submit(store, "low", 4, 1000.0, preemptible=True)
    submit(store, "high", 4, 1001.0)
    with capture_logs() as lines:
        scheduler.tick()
        run(store, "low", 1000.0)
        submit(store, "higher", 4, 1002.0, priority=5)
        for _ in range(3):  # the request is repeated, and the line is not
            clock.at += 10.0
            scheduler.tick()
    told = [(line["event"], line["workload"]) for line in lines]
    assert told == [
        ("scheduler.start", "low"),
        ("scheduler.preempt", "low"),
        ("scheduler.start", "higher"),
    ]
    assert (lines[0]["nodes"], lines[1]["by"]) == (["a"], "higher")


def test_a_node_that_drains_is_left_and_the_job_goes_on_elsewhere(store: SqlStore) -> None:
    clock = FakeClock(at=1000.0)
    lines: list[str] = []
    scheduler = Scheduler(store, clock, lines.append)
    submit(store, "moves", 2, 1000.0, preemptible=True, kind=WorkloadKind.TRAIN)
    submit(store, "stays", 1, 1000.0)
    assert scheduler.tick() == 2
    token = run(store, "moves", 1000.0)
    store.pool.record_nodes([cpu_node("b", 4)], now=1.0)
    assert store.pool.set_node(NodeId("a"), NodeState.DRAINING)
    clock.at += 10.0
    assert scheduler.tick() == 0
    assert state(store, "moves") == State.PREEMPTING
    assert store.workloads.requeue(WorkloadId("moves"), token, Status(ran_s=10.0), now=clock.at)
    assert scheduler.tick() == 1
    grants = store.workloads.allocations()[WorkloadId("moves")].grants
    assert {grant.node for grant in grants} == {"b"}
    assert state(store, "stays") == State.PLACED
    assert verify_log(lines).line is None


def test_a_project_that_has_spent_its_limit_yields_what_it_can_go_on_with(
    store: SqlStore,
) -> None:
    clock = FakeClock(at=1000.0)
    lines: list[str] = []
    scheduler = Scheduler(store, clock, lines.append)
    store.usage.put_device_price(DevicePrice(device="cpu", hour=HOUR_RATE), now=clock.at)
    limits = ProjectLimits(spend_nano=HOUR_RATE * 1000)  # a core-hour
    store.access.add_project(Project(name="default", limits=limits))
    submit(store, "saved", 2, 1000.0, preemptible=True, kind=WorkloadKind.TRAIN)
    submit(store, "unsaved", 1, 1000.0, preemptible=True)
    assert scheduler.tick() == 2
    token = run(store, "saved", 1000.0)
    clock.at += 1199.0
    submit(store, "next", 1, clock.at)
    assert scheduler.tick() == 1
    clock.at += 61.0
    submit(store, "late", 1, clock.at)
    assert scheduler.tick() == 0
    assert state(store, "saved") == State.PREEMPTING
    assert state(store, "unsaved") == State.PLACED
    assert store.workloads.requeue(WorkloadId("saved"), token, Status(ran_s=9.0), now=clock.at)
    clock.at += 10.0
    assert scheduler.tick() == 0
    reasons = {ident: reason for ident, _, reason in store.workloads.queued()}
    assert set(reasons) == {"saved", "late"}
    assert all("project default has spent its 2 for this month" in r for r in reasons.values())
    why = scheduler.explain(WorkloadId("saved"))
    assert why is not None
    assert "--spend" in why.changes[0].what
    store.access.set_quota(Project(name="default", limits=replace(limits, spend_nano=None)))
    assert scheduler.tick() == 1
    assert verify_log(lines).line is None


def test_maintenance_is_kept_free_and_then_over(store: SqlStore) -> None:
    clock = FakeClock(at=1000.0)
    scheduler = Scheduler(store, clock)
    window = MaintenanceWindow(starts_at=2000.0, ends_at=3000.0, reason="firmware")
    assert store.pool.set_windows(NodeId("a"), [window])
    assert not store.pool.set_windows(NodeId("x"), [window])
    submit(store, "short", 1, 1000.0, expected_duration_s=500.0)
    submit(store, "long", 1, 1000.0, expected_duration_s=5000.0)
    assert scheduler.tick() == 1
    assert state(store, "short") == State.PLACED
    waits = store.workloads.job("long")
    assert waits is not None
    assert "maintenance" in waits.status.reason
    clock.at = 2500.0
    assert scheduler.tick() == 0
    waits = store.workloads.job("long")
    assert waits is not None
    assert "1 in maintenance" in waits.status.reason
    clock.at = 3001.0
    assert scheduler.tick() == 1


def test_devices_offered_for_a_lost_rank_are_given_to_nobody_else(store: SqlStore) -> None:
    clock = FakeClock(at=1000.0)
    scheduler = Scheduler(store, clock)
    submit(store, "gang", 2, 1000.0)
    assert scheduler.tick() == 1
    token = run(store, "gang", 1000.0)
    found = scheduler.find_grants(ResourceRequest(milli=2000), 1, frozenset())
    assert len(found) == 1
    assert scheduler.find_grants(ResourceRequest(milli=2000), 1, frozenset()) == ()
    submit(store, "other", 2, 1001.0)
    assert scheduler.tick() == 0
    assert store.workloads.regrant(WorkloadId("gang"), token, found, now=1002.0)
    assert scheduler.tick() == 1  # what the gang left is free now
    clock.at += LENT_S + 1
    scheduler.tick()
    free = scheduler.find_grants(ResourceRequest(milli=1000), 4, frozenset())
    assert free == ()


def test_what_was_offered_and_not_taken_is_free_again(store: SqlStore) -> None:
    clock = FakeClock(at=1000.0)
    scheduler = Scheduler(store, clock)
    assert len(scheduler.find_grants(ResourceRequest(milli=4000), 1, frozenset())) == 1
    submit(store, "next", 4, 1000.0)
    assert scheduler.tick() == 0
    clock.at += LENT_S + 1
    assert scheduler.tick() == 1


def test_a_decision_stands_while_others_make_room_and_falls_if_it_is_cancelled(
    store: SqlStore,
) -> None:
    clock = FakeClock(at=1000.0)
    scheduler = Scheduler(store, clock)
    submit(store, "low", 4, 1000.0, preemptible=True)
    scheduler.tick()
    token = run(store, "low", 1000.0)
    submit(store, "high", 4, 1001.0, priority=5)
    submit(store, "later", 4, 1001.0, priority=4)
    scheduler.tick()
    why = scheduler.explain(WorkloadId("high"))
    assert why is not None
    assert why.reason == "low makes room for it"
    store.workloads.request_stop(WorkloadId("high"), at=1002.0)
    assert store.workloads.requeue(WorkloadId("low"), token, Status(), now=1002.0)
    clock.at += 10.0
    assert scheduler.tick() == 1
    assert state(store, "later") == State.PLACED


def test_an_elastic_job_is_asked_to_grow_and_what_it_does_not_do_is_forgotten(
    store: SqlStore,
) -> None:
    clock = FakeClock(at=1000.0)
    scheduler = Scheduler(store, clock)
    gang = GangSpec(min=1, want=1, max=4)
    spec = JobSpec(name="e", command=("x",), kind=WorkloadKind.TRAIN, gang=gang)
    job = Job(id=WorkloadId("e"), spec=spec, owner="me", created_at=1000.0)
    store.workloads.add_job(job)
    assert scheduler.tick() == 1
    token = run(store, "e", 1000.0)
    clock.at += HOUR_S
    scheduler.tick()
    asked = store.resize_requests.requested(WorkloadId("e"))
    assert asked is not None
    assert len(asked) == 4
    clock.at += RESIZE_S + GRACE_S + 1  # it has not done so
    scheduler.tick()
    submit(store, "n", 3, clock.at)
    assert scheduler.tick() == 1
    assert store.workloads.regrant(WorkloadId("e"), token, asked[:1], now=clock.at)
    scheduler.tick()
    assert scheduler.find_grants(ResourceRequest(), 4, frozenset()) == ()


def test_moves_are_made_when_an_operator_says_so(store: SqlStore) -> None:
    clock = FakeClock(at=1000.0)
    lines: list[str] = []
    scheduler = Scheduler(store, clock, lines.append)
    store.pool.record_nodes([cpu_node("b", 4)], now=1.0)
    for name in ("w1", "w2", "w3", "w4"):
        submit(store, name, 2, 1000.0, preemptible=True, kind=WorkloadKind.TRAIN)
    assert scheduler.tick() == 4
    tokens = {name: "" for name in ("w1", "w2", "w3", "w4")}
    claimed = store.workloads.claim([State.PLACED], owner="c", now=1000.0, lease_s=1e9)
    for ident, token in claimed:
        tokens[str(ident)] = token
        store.workloads.update(ident, token=token, state=State.RUNNING, at=1000.0)
    where = {i: a.grants[0].node for i, a in store.workloads.allocations().items()}
    gone = next(name for name in tokens if where[WorkloadId(name)] == "a")
    other = next(name for name in tokens if where[WorkloadId(name)] == "b")
    for name in (gone, other):
        store.workloads.end(WorkloadId(name), tokens[name], State.SUCCEEDED, Status(), now=1001.0)
    clock.at = 1010.0
    scheduler.tick()
    plan = scheduler.defragment(carry_out=False)
    assert (len(plan.moves), len(plan.freed), plan.carried_out) == (1, 1, False)
    done = scheduler.defragment(carry_out=True)
    assert done.carried_out
    moved = done.moves[0].id
    assert state(store, moved) == State.PREEMPTING
    assert store.workloads.requeue(moved, tokens[moved], Status(ran_s=9.0), now=clock.at)
    assert scheduler.tick() == 1
    nodes = {g.node for a in store.workloads.allocations().values() for g in a.grants}
    assert nodes == set(done.moves[0].takes)
    assert verify_log(lines).line is None


def test_a_node_that_flaps_costs_nobody_a_device_twice(store: SqlStore) -> None:
    """Lost and back forty times, while work comes and goes: what is held is held once."""
    clock = FakeClock(at=1000.0)
    lines: list[str] = []
    scheduler = Scheduler(store, clock, lines.append)
    store.pool.record_nodes([cpu_node("b", 4)], now=1.0)
    chance = Random(5)
    tokens: dict[str, str] = {}
    for number in range(40):
        clock.at += chance.choice([0.5, 7.0, 700.0])
        submit(store, f"f{number}", chance.randint(1, 4), clock.at, preemptible=number % 2 == 0)
        store.pool.set_node(NodeId("a"), NodeState.LOST if number % 2 else NodeState.READY)
        scheduler.tick()
        claimed = store.workloads.claim([State.PLACED], owner="c", now=clock.at, lease_s=1e9)
        for ident, token in claimed:
            tokens[str(ident)] = token
            store.workloads.update(ident, token=token, state=State.RUNNING, at=clock.at)
        for job in store.workloads.jobs(projects=None, states=(State.PREEMPTING,)):
            token = tokens.pop(job.id)
            assert store.workloads.requeue(job.id, token, Status(ran_s=1.0), now=clock.at)
        if tokens and chance.random() < 0.6:
            name = chance.choice(sorted(tokens))
            ended = store.workloads.end(
                WorkloadId(name), tokens.pop(name), State.SUCCEEDED, Status(), now=clock.at
            )
            assert ended
        held: Counter[tuple[str, int]] = Counter()
        for allocation in store.workloads.allocations().values():
            for grant in allocation.grants:
                held.update({(grant.node, index): milli for index, milli in grant.devices})
        assert all(milli <= 1000 for milli in held.values()), held
    assert verify_log(lines).line is None
