"""Preemption: reclaim of lent quota, costs, and what holds whatever is preempted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.gangs import GangSpec
from karez.core.identity import Project
from karez.core.nodes import Node, NodeId
from karez.core.resource_requests import ResourceRequest
from karez.core.workloads import WorkloadId
from karez.scheduling.decisions import Preempt, Resize, Start
from karez.scheduling.queue.order import (
    RESTART_S,
    SchedulingPolicy,
)
from tests.scheduling.builders import GPU, HOUR_S, NPU, decide, elastic, engine_with, job, starts
from tests.scheduling.test_snapshot import gang, node


def lenders() -> tuple[Project, Project]:
    return (
        Project(name="lab", cohort="c", guarantee={NPU: 4000}),
        Project(name="shop", cohort="c", guarantee={NPU: 4000}),
    )


def test_a_quota_owner_reclaims_from_the_cheapest_borrower() -> None:
    engine = engine_with([node("a", 8)], *lenders())
    decide(
        engine,
        0.0,
        job("s1", gang(1, 4), project="shop"),
        job("s2", gang(1, 2), project="shop", resumes=False),
        job("s3", gang(1, 2), project="shop"),
    )
    assert len(engine.cluster.running) == 3
    acts = decide(engine, HOUR_S, job("l", gang(1, 2), HOUR_S, project="lab"))
    stops = [act for act in acts if isinstance(act, Preempt)]
    assert [(one.id, one.by) for one in stops] == [("s3", "l")]  # s2 would lose an hour's work
    assert starts(acts) == ["l"]
    assert stops[0].lost_device_s == pytest.approx(RESTART_S * 2)


def test_no_workload_is_preempted_beyond_the_guarantee() -> None:
    engine = engine_with([node("a", 8)], *lenders())
    decide(engine, 0.0, job("s", gang(1, 8), project="shop"))
    assert decide(engine, 1.0, job("l", gang(1, 5), 1.0, project="lab")) == []


def test_a_borrower_that_is_not_preemptible_keeps_its_devices() -> None:
    engine = engine_with([node("a", 8)], *lenders())
    decide(engine, 0.0, job("s", gang(1, 8), project="shop", preemptible=False))
    assert decide(engine, 1.0, job("l", gang(1, 4), 1.0, project="lab")) == []


def test_a_workload_waits_for_a_faster_alternative_only_if_it_ends_sooner() -> None:
    fast = node("f", 4)
    slow = Node(
        id=NodeId("s"),
        address="",
        devices=tuple(type(d)(kind=GPU, index=d.index) for d in fast.devices),
    )
    either = GangSpec(
        each=(
            ResourceRequest(kind=NPU, milli=4000),
            ResourceRequest(kind=GPU, milli=4000, speed=0.25),
        )
    )
    for busy_s, starts_now in ((100.0, False), (5000.0, True)):
        engine = engine_with([fast, slow], policy=SchedulingPolicy())
        decide(engine, 0.0, job("b", gang(1, 4), expected_s=busy_s))
        acts = decide(engine, 1.0, job("w", either, 1.0, expected_s=1000.0))
        assert bool(acts) == starts_now
        if not starts_now:
            assert "faster" in engine.reasons()[WorkloadId("w")]
            engine.finish(WorkloadId("b"))
            (start,) = engine.decide(101.0)
            assert isinstance(start, Start)
            assert start.grants[0].kind == NPU


def test_no_preemption_costs_more_than_it_gains() -> None:
    """Both have stood in line for the same reasons; only how much would be lost differs."""
    for resumes, stops in ((True, True), (False, False)):
        engine = engine_with([node("a", 4)])
        decide(engine, 0.0, job("long", gang(1, 4), resumes=resumes))
        now = 20 * HOUR_S
        acts = decide(engine, now, job("small", gang(1, 1), now))
        assert bool(acts) == stops


sized = st.tuples(
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(0, 4),
    st.booleans(),
    st.integers(0, 2),
    st.sampled_from(["lab", "shop"]),
    st.floats(1.0, 30 * HOUR_S),
    st.booleans(),
)


@given(told=st.lists(sized, max_size=20))
def test_sizes_quotas_and_devices_hold_whatever_is_preempted(
    told: list[tuple[int, int, int, bool, int, str, float, bool]],
) -> None:
    lab = Project(name="lab", cohort="c", guarantee={NPU: 5000}, lend={NPU: 3000})
    shop = Project(name="shop", cohort="c", guarantee={NPU: 5000}, quota={NPU: 9000})
    engine = engine_with([node("a", 4, "s"), node("b", 4, "s"), node("c", 4, "t")], lab, shop)
    now, known = 0.0, {}
    for number, (low, more, grow, stops, priority, project, pause, ends) in enumerate(told):
        now += pause
        asked = elastic(low, low + more, low + more + grow)
        arrival = job(
            f"j{number}", asked, now, project=project, preemptible=stops, priority=priority
        )
        known[arrival.id] = arrival
        if ends and engine.cluster.running:
            engine.finish(min(engine.cluster.running))
        acts = decide(engine, now, arrival)
        begun = set(starts(acts))
        assert len(starts(acts)) == len(begun)  # nothing starts twice in one breath
        for act in acts:
            if isinstance(act, Preempt):
                assert known[act.id].preemptible
                assert act.by is None or act.by in engine.cluster.running
            if isinstance(act, Resize):
                assert known[act.id].gang.min <= len(act.grants) <= known[act.id].gang.most
                assert act.by is None or act.by in begun
        used = {"lab": 0, "shop": 0}
        for run in engine.cluster.running.values():
            gang_size = known[run.id].gang
            assert gang_size.min <= len(run.grants) <= gang_size.most
            used[run.project] += sum(grant.milli for grant in run.grants)
        assert used["shop"] <= 8000  # its own 5 and the 3 that the lab lends at most
        assert used["lab"] <= 10_000
        free = engine.cluster.pool.inventory.arrays.free
        assert (free >= 0).all()
        assert int(free.sum()) + sum(used.values()) == 12_000


def test_an_owner_that_reclaims_does_not_become_a_borrower() -> None:
    engine = engine_with([node("a", 8)], *lenders())
    whole = GangSpec(min=1, want=8, each=(ResourceRequest(kind=NPU),))
    decide(engine, 0.0, job("s", whole, project="shop"))
    acts = decide(engine, 10.0, job("l", whole, 10.0, project="lab"))
    assert sorted(starts(acts)) == ["l", "s"]
    sizes = {run.id: len(run.grants) for run in engine.cluster.running.values()}
    assert sizes == {"l": 4, "s": 4}
    assert [engine.decide(float(at)) for at in (20, 700, 1400, 90_000)] == [[], [], [], []]


def test_lost_work_is_counted_as_remaining() -> None:
    engine = engine_with([node("a", 4)])
    decide(engine, 0.0, job("x", gang(1, 4), resumes=False, expected_s=1e4))
    decide(engine, 3700.0, job("y", gang(1, 4), 3700.0, priority=1))
    assert engine.pending[WorkloadId("x")].done_s == 0.0


def test_a_quota_owner_submitted_with_a_borrower_reclaims_in_the_next_pass() -> None:
    engine = engine_with([node("a", 8)], *lenders())
    whole = gang(1, 8)
    acts = decide(
        engine,
        0.0,
        job("s", whole, project="shop", priority=5),
        job("l", gang(1, 4), project="lab"),
    )
    assert starts(acts) == ["s"]
    stop, start = engine.decide(5.0)
    assert isinstance(stop, Preempt)
    assert (stop.id, stop.by, start.id) == ("s", "l", "l")
