"""The engine through days of arrivals, ends and preemptions: invariants after every decision."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from karez.core.devices import DeviceKind
from karez.core.gangs import GangSpec
from karez.core.identity import Project
from karez.core.resource_requests import ResourceRequest
from karez.core.workloads import WorkloadId
from karez.scheduling.decisions import Preempt, Start
from karez.scheduling.engine import SchedulingEngine
from karez.scheduling.queue.order import (
    AGING_S_PER_DOUBLING,
    PendingWorkload,
    QueueOrder,
    SchedulingPolicy,
)
from karez.scheduling.snapshot import Snapshot, engine_from
from tests.scheduling.test_snapshot import gang, node

NPU = DeviceKind.NPU
HOUR_S = 3600.0


def job(number: int, asked: GangSpec, since: float, **more: object) -> PendingWorkload:
    fields: dict[str, object] = {"project": "p", "priority": 0, "order": number, **more}
    return PendingWorkload(id=WorkloadId(f"j{number}"), gang=asked, since=since, **fields)  # type: ignore[arg-type]


def held(engine: SchedulingEngine) -> Counter[tuple[str, int]]:
    found: Counter[tuple[str, int]] = Counter()
    for run in engine.cluster.running.values():
        for grant in run.grants:
            for index, milli in grant.devices:
                found[grant.node, index] += milli
    return found


steps = st.lists(
    st.tuples(
        st.sampled_from([1, 2, 3, 8, 16]),  # devices
        st.floats(0, 5 * HOUR_S),  # pause before it arrives
        st.one_of(st.none(), st.floats(60, 50 * HOUR_S)),  # expected
        st.booleans(),  # preemptible
        st.integers(0, 1),  # priority
        st.booleans(),  # something ends now
    ),
    max_size=25,
)


@given(steps=steps, order=st.sampled_from(QueueOrder), preempts=st.booleans())
def test_gangs_are_whole_devices_are_held_once_and_nobody_stops_for_nothing(
    steps: list[tuple[int, float, float | None, bool, int, bool]], order: QueueOrder, preempts: bool
) -> None:
    policy = SchedulingPolicy(order=order, preempts=preempts, reserve_after_s=HOUR_S)
    projects = {"p": Project(name="p", quota={NPU: 14_000})}
    nodes = [node("a", 8), node("b", 8)]
    engine = engine_from(Snapshot(nodes=nodes, projects=projects), policy)
    now, known, ended = 0.0, {}, set()
    for number, (devices, pause_s, expected_s, preemptible, priority, ends) in enumerate(steps):
        now += pause_s
        each = gang(devices // 8 or 1, min(devices, 8))
        waiting = job(
            number, each, now, expected_s=expected_s, preemptible=preemptible, priority=priority
        )
        known[waiting.id] = waiting
        engine.add(waiting)
        if ends and engine.cluster.running:
            ended.add(engine.finish(min(engine.cluster.running)).id)
        decisions = engine.decide(now)
        starts = {d.id: d for d in decisions if isinstance(d, Start)}
        for decision in decisions:
            if isinstance(decision, Preempt):
                assert preempts
                assert decision.by in starts
                assert known[decision.id].preemptible
                assert known[decision.id].priority <= known[decision.by].priority
        for start in starts.values():
            asked = known[start.id].gang
            assert len(start.grants) == asked.min
            assert all(grant.milli == asked.each[0].milli for grant in start.grants)
        assert all(milli <= 1000 for milli in held(engine).values())
        assert sum(held(engine).values()) <= 14_000
        free = engine.cluster.pool.inventory.free_milli
        assert free + sum(held(engine).values()) == 16_000
        reasons = engine.reasons()
        assert set(reasons) == set(known) - set(engine.cluster.running) - ended
        assert all(reasons.values())


def test_a_short_job_stops_a_long_one_that_has_run_for_long_and_is_stopped_by_none() -> None:
    engine = engine_from(Snapshot(nodes=[node("a", 8)]), SchedulingPolicy(preempts=True))
    engine.add(job(0, gang(1, 8), 0.0))
    assert [type(d) for d in engine.decide(0.0)] == [Start]
    later = 40 * AGING_S_PER_DOUBLING
    engine.add(job(1, gang(1, 1), later))
    decisions = engine.decide(later)
    assert decisions == []  # older work is ahead of new work, however long it has run
    engine.finish(WorkloadId("j0"))
    assert [d.id for d in engine.decide(later)] == ["j1"]


def test_work_that_grew_makes_room_for_small_work() -> None:
    """After ten hours on eight devices, the first is nine doublings back: 36 days in line."""
    engine = engine_from(Snapshot(nodes=[node("a", 8)]), SchedulingPolicy(preempts=True))
    engine.add(job(0, gang(1, 8), 0.0))
    engine.decide(0.0)
    now = 10 * HOUR_S
    engine.add(job(1, gang(1, 1), now))
    stop, start = engine.decide(now)
    assert isinstance(stop, Preempt)
    assert (stop.id, stop.by) == ("j0", "j1")
    assert isinstance(start, Start)
    assert engine.pending_count == 1  # the preempted workload is queued again


def test_who_opts_out_is_never_stopped() -> None:
    engine = engine_from(Snapshot(nodes=[node("a", 8)]), SchedulingPolicy(preempts=True))
    engine.add(job(0, gang(1, 8), 0.0, preemptible=False))
    engine.decide(0.0)
    engine.add(job(1, gang(1, 1), 10 * HOUR_S))
    assert engine.decide(10 * HOUR_S) == []


def test_backfill_passes_only_who_does_not_delay_the_first() -> None:
    policy = SchedulingPolicy(order=QueueOrder.BACKFILL, reserve_after_s=0.0)
    engine = engine_from(Snapshot(nodes=[node("a", 8)]), policy)
    engine.add(job(0, gang(1, 6), 0.0, expected_s=100.0))
    engine.decide(0.0)
    engine.add(job(1, gang(1, 8), 1.0, expected_s=100.0))
    engine.add(job(2, gang(1, 2), 2.0, expected_s=200.0))  # would still run when the first ends
    engine.add(job(3, gang(1, 2), 3.0, expected_s=90.0))
    assert [d.id for d in engine.decide(5.0)] == ["j3"]


def test_nobody_starves_while_small_work_keeps_coming() -> None:
    """A full-size gang against an endless stream of small work: it starts within the bound."""
    policy = SchedulingPolicy(preempts=True, reserve_after_s=AGING_S_PER_DOUBLING)
    engine = engine_from(Snapshot(nodes=[node("a", 8)]), policy)
    engine.add(job(0, GangSpec(min=1, want=1, each=(ResourceRequest(kind=NPU, milli=8000),)), 0.0))
    now, number = 0.0, 1
    for _ in range(8):
        engine.add(job(number, gang(1, 1), -1.0, preemptible=False))
        number += 1
    ends: list[tuple[float, WorkloadId]] = []
    started_at = None
    while started_at is None and now < 3 * AGING_S_PER_DOUBLING:
        for decision in engine.decide(now):
            if isinstance(decision, Start):
                if decision.id == "j0":
                    started_at = now
                ends.append((now + HOUR_S + 97 * (number % 7), decision.id))
        ends.sort()
        now, ident = ends.pop(0)
        engine.finish(ident)
        engine.add(job(number, gang(1, 1), now, preemptible=False))
        number += 1
    assert started_at is not None
    assert started_at <= AGING_S_PER_DOUBLING + 3 * HOUR_S


def test_a_reservation_outlives_the_pass_that_made_it() -> None:
    policy = SchedulingPolicy(order=QueueOrder.BACKFILL, reserve_after_s=0.0)
    engine = engine_from(Snapshot(nodes=[node("a", 8)]), policy)
    engine.add(job(0, gang(1, 6), 0.0, expected_s=100.0))
    engine.decide(0.0)
    engine.add(job(1, gang(1, 8), 1.0, expected_s=100.0))
    assert engine.decide(5.0) == []
    engine.add(job(2, gang(1, 2), 6.0, expected_s=200.0))
    assert engine.decide(6.0) == []  # it would still run at 100, when the first in line can start
    engine.add(job(3, gang(1, 2), 7.0, expected_s=90.0))
    assert [d.id for d in engine.decide(7.0)] == ["j3"]
    engine.finish(WorkloadId("j0"))
    engine.finish(WorkloadId("j3"))
    assert [d.id for d in engine.decide(100.0)] == ["j1"]
