"""Who makes room for whom: fair shares, lent quota, elastic sizes, moves, drains, prices."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.devices import DeviceKind
from karez.core.gangs import GangSpec, Topology
from karez.core.identity import Project
from karez.core.node_affinity import NodeAffinity
from karez.core.nodes import MaintenanceWindow, Node, NodeId, NodeState
from karez.core.resource_requests import ResourceRequest
from karez.core.workloads import WorkloadId
from karez.scheduling.decisions import Action, Preempt, Resize, Start
from karez.scheduling.engine import SchedulingEngine
from karez.scheduling.preemption.defragment import plan_defrag
from karez.scheduling.queue.fair_share import HALF_LIFE_S, MAX_DOUBLINGS, FairShare
from karez.scheduling.queue.order import (
    AGING_S_PER_DOUBLING,
    RESTART_S,
    PendingWorkload,
    SchedulingPolicy,
)
from karez.scheduling.snapshot import Snapshot, engine_from
from karez.scheduling.state_changes import relocate_workloads
from tests.scheduling.test_snapshot import gang, node

NPU, GPU = DeviceKind.NPU, DeviceKind.GPU
HOUR_S = 3600.0
ALL = SchedulingPolicy(preempts=True, elastic=True, defragments=True, fair=True)


def job(name: str, asked: GangSpec, since: float = 0.0, **more: object) -> PendingWorkload:
    fields: dict[str, object] = {"project": "p", "priority": 0, **more}
    return PendingWorkload(id=WorkloadId(name), gang=asked, since=since, **fields)  # type: ignore[arg-type]


def elastic(low: int, want: int, most: int) -> GangSpec:
    return GangSpec(min=low, want=want, max=most, each=(ResourceRequest(kind=NPU),))


def desk_with(
    nodes: list[Node], *projects: Project, policy: SchedulingPolicy = ALL
) -> SchedulingEngine:
    known = {project.name: project for project in projects}
    return engine_from(Snapshot(nodes=nodes, projects=known), policy)


def decide(engine: SchedulingEngine, now: float, *arrivals: PendingWorkload) -> list[Action]:
    for arrival in arrivals:
        engine.add(arrival)
    return engine.decide(now)


def starts(acts: list[Action]) -> list[str]:
    return [act.id for act in acts if isinstance(act, Start)]


# fair shares


def test_who_had_more_than_its_share_stands_behind_and_time_forgives() -> None:
    shares = FairShare(capacity={NPU: 8000})
    projects = {"a": Project(name="a", weight=3), "b": Project(name="b")}
    used = {("a", NPU): 4000, ("b", NPU): 4000}
    shares.advance(HOUR_S, used)
    back = shares.penalty_s(projects, ["a", "b"])
    assert back["a"] == pytest.approx(AGING_S_PER_DOUBLING * math.log2(0.5 / 0.75))
    assert back["b"] == pytest.approx(AGING_S_PER_DOUBLING * math.log2(0.5 / 0.25))
    before = dict(shares.usage_s)
    shares.advance(HOUR_S + HALF_LIFE_S, {})
    assert shares.usage_s["a"] == pytest.approx(before["a"] / 2)
    assert shares.penalty_s(projects, ["a"]) == {}


def test_the_dominant_share_counts_not_the_sum() -> None:
    shares = FairShare(capacity={NPU: 8000, DeviceKind.CPU: 100_000})
    shares.advance(100.0, {("a", NPU): 4000, ("a", DeviceKind.CPU): 10_000})
    shares.advance(200.0, {("b", DeviceKind.CPU): 50_000, ("b", NPU): 800})
    assert shares.usage_s["a"] == pytest.approx(shares.usage_s["b"], rel=1e-3)


@given(
    spans=st.lists(st.tuples(st.floats(1, 1e6), st.integers(0, 8), st.integers(0, 8)), max_size=10),
    weights=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_a_share_moves_nobody_further_than_the_bound(
    spans: list[tuple[float, int, int]], weights: tuple[int, int]
) -> None:
    shares, now = FairShare(capacity={NPU: 8000}), 0.0
    for span, a, b in spans:
        now += span
        shares.advance(now, {("a", NPU): a * 1000, ("b", NPU): b * 1000})
    projects = {"a": Project(name="a", weight=weights[0]), "b": Project(name="b")}
    back = shares.penalty_s(projects, ["a", "b"])
    assert all(abs(one) <= MAX_DOUBLINGS * AGING_S_PER_DOUBLING for one in back.values())
    if spans and len(back) == 2 and weights == (1, 1) and shares.usage_s.get("a", 0) > 0:
        more = shares.usage_s["a"] > shares.usage_s.get("b", 0)
        assert (back["a"] >= back["b"]) == more or back["a"] == back["b"]


def test_the_project_that_had_less_goes_first() -> None:
    engine = desk_with([node("a", 4)], policy=SchedulingPolicy(fair=True))
    decide(engine, 0.0, job("old", gang(1, 4), project="rich", preemptible=False))
    later = 10 * HOUR_S
    acts = decide(
        engine,
        later,
        job("r", gang(1, 4), later - 2, project="rich"),
        job("q", gang(1, 4), later - 1, project="poor"),
    )
    assert acts == []
    engine.finish(WorkloadId("old"))
    assert starts(engine.decide(later)) == ["q"]


# lent quota


def lenders() -> tuple[Project, Project]:
    return (
        Project(name="lab", cohort="c", guarantee={NPU: 4000}),
        Project(name="shop", cohort="c", guarantee={NPU: 4000}),
    )


def test_what_was_lent_is_taken_back_by_its_owner_from_the_cheapest() -> None:
    engine = desk_with([node("a", 8)], *lenders())
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


def test_nobody_is_stopped_for_what_is_beyond_the_guarantee() -> None:
    engine = desk_with([node("a", 8)], *lenders())
    decide(engine, 0.0, job("s", gang(1, 8), project="shop"))
    assert decide(engine, 1.0, job("l", gang(1, 5), 1.0, project="lab")) == []


def test_who_opted_out_keeps_what_it_borrowed() -> None:
    engine = desk_with([node("a", 8)], *lenders())
    decide(engine, 0.0, job("s", gang(1, 8), project="shop", preemptible=False))
    assert decide(engine, 1.0, job("l", gang(1, 4), 1.0, project="lab")) == []


# elastic sizes


def test_an_elastic_gang_takes_what_is_idle_and_gives_it_back() -> None:
    engine = desk_with([node("a", 8)])
    (begun,) = decide(engine, 0.0, job("e", elastic(1, 2, 8), preemptible=False))
    assert isinstance(begun, Start)
    assert len(begun.grants) == 2
    assert engine.decide(60.0) == []  # it has only just begun
    (grown,) = engine.decide(HOUR_S)
    assert isinstance(grown, Resize)
    assert len(grown.grants) == 8
    shrunk, start = decide(engine, HOUR_S + 1, job("n", gang(1, 3), HOUR_S + 1, preemptible=False))
    assert isinstance(shrunk, Resize)
    assert (len(shrunk.grants), shrunk.by) == (5, "n")
    assert start.id == "n"
    shrunk, start = decide(
        engine, HOUR_S + 2, job("m", gang(1, 4), HOUR_S + 2, priority=1, preemptible=False)
    )
    assert isinstance(shrunk, Resize)
    assert len(shrunk.grants) == 1
    assert decide(engine, HOUR_S + 3, job("o", gang(1, 4), HOUR_S + 3, priority=2)) == []


def test_growth_is_within_quota_and_only_for_who_says_how_far() -> None:
    lab = Project(name="p", quota={NPU: 5000})
    engine = desk_with([node("a", 8)], lab)
    decide(engine, 0.0, job("e", elastic(1, 2, 8)), job("f", gang(2, 1, low=1)))
    (grown,) = engine.decide(HOUR_S)
    assert isinstance(grown, Resize)
    assert (grown.id, len(grown.grants)) == ("e", 3)


def test_half_the_workers_do_half_the_work_and_ends_follow() -> None:
    engine = desk_with([node("a", 4)])
    decide(engine, 0.0, job("e", elastic(1, 4, 4), expected_s=1000.0, preemptible=False))
    assert engine.cluster.running[WorkloadId("e")].ends_by == 1000.0
    decide(engine, 500.0, job("n", gang(1, 2), 500.0, priority=1, expected_s=100.0))
    run = engine.cluster.running[WorkloadId("e")]
    assert run.work_rate == 0.5
    assert run.ends_by == pytest.approx(1500.0)


# alternatives


def test_it_waits_for_a_faster_alternative_only_if_it_then_ends_sooner() -> None:
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
        engine = desk_with([fast, slow], policy=SchedulingPolicy())
        decide(engine, 0.0, job("b", gang(1, 4), expected_s=busy_s))
        acts = decide(engine, 1.0, job("w", either, 1.0, expected_s=1000.0))
        assert bool(acts) == starts_now
        if not starts_now:
            assert "faster" in engine.reasons()[WorkloadId("w")]
            engine.finish(WorkloadId("b"))
            (start,) = engine.decide(101.0)
            assert isinstance(start, Start)
            assert start.grants[0].kind == NPU


def test_a_deadline_puts_it_ahead_in_time() -> None:
    engine = desk_with([node("a", 4)], policy=SchedulingPolicy())
    decide(engine, 0.0, job("b", gang(1, 4), preemptible=False))
    late = job("d", gang(1, 4), 10.0, expected_s=40 * HOUR_S, deadline_at=43 * HOUR_S)
    decide(engine, 3 * HOUR_S, late, job("n", gang(1, 4), 3 * HOUR_S))
    engine.finish(WorkloadId("b"))
    assert starts(engine.decide(3 * HOUR_S)) == ["d"]


# moves


def scattered(*, resumes: bool = True, preemptible: bool = True) -> SchedulingEngine:
    """Two nodes half full of single workers that may be moved."""
    engine = desk_with([node("a", 4), node("b", 4)])
    workers = [job(f"w{i}", gang(1, 1), resumes=resumes, preemptible=preemptible) for i in range(8)]
    decide(engine, 0.0, *workers)
    for number in (0, 1, 4, 5):
        engine.finish(WorkloadId(f"w{number}"))
    return engine


def test_scattered_work_is_brought_together_for_one_that_has_waited_long() -> None:
    engine = scattered()
    assert decide(engine, 10.0, job("big", gang(1, 4), 10.0)) == []
    acts = engine.decide(10.0 + HOUR_S)
    moved = [act.id for act in acts if isinstance(act, Preempt)]
    assert len(moved) == 2
    assert set(starts(acts)) == {*moved, "big"}
    free = engine.cluster.pool.inventory.arrays.free
    assert (free == 0).all()


def test_what_does_not_go_on_or_opted_out_is_not_moved() -> None:
    for resumes, preemptible in ((False, True), (True, False)):
        engine = scattered(resumes=resumes, preemptible=preemptible)
        assert decide(engine, 10.0, job("big", gang(1, 4), 10.0)) == []
        assert engine.decide(10.0 + HOUR_S) == []
        assert plan_defrag(engine.cluster, HOUR_S).relocations == ()


def test_a_plan_frees_a_node_and_says_what_it_costs() -> None:
    engine = scattered()
    plan = plan_defrag(engine.cluster, HOUR_S)
    assert len(plan.relocations) == 2
    assert len(plan.freed_nodes) == 1
    assert plan.cost_device_s == pytest.approx(2 * RESTART_S)
    assert {grant.node for move in plan.relocations for grant in move.takes}.isdisjoint(
        plan.freed_nodes
    )
    before = len(engine.cluster.running)
    targets = {move.id: move.takes for move in plan.relocations}
    acts = relocate_workloads(engine.cluster, targets, HOUR_S)
    assert len(acts) == 4
    assert len(engine.cluster.running) == before
    assert plan.freed_nodes[0] not in {
        grant.node for run in engine.cluster.running.values() for grant in run.grants
    }


# drains and maintenance


def test_a_draining_node_is_left_by_what_may_be_stopped() -> None:
    closing = node("a", 2, state=NodeState.DRAINING)
    held = desk_with([node("a", 2)])
    decide(held, 0.0, job("m", gang(1, 1)), job("k", gang(1, 1), preemptible=False))
    runs = list(held.cluster.running.values())
    engine = desk_with([closing, node("b", 2)])
    for run in runs:
        engine.cluster.add(run)
    stop, start = engine.decide(1.0)
    assert isinstance(stop, Preempt)
    assert (stop.id, stop.by) == ("m", None)
    assert isinstance(start, Start)
    assert start.grants[0].node == "b"


def test_work_before_maintenance_is_what_ends_in_time() -> None:
    window = MaintenanceWindow(starts_at=HOUR_S, ends_at=2 * HOUR_S)
    engine = desk_with([node("a", 4, windows=(window,))])
    acts = decide(
        engine,
        0.0,
        job("short", gang(1, 1), expected_s=600.0, preemptible=False),
        job("long", gang(1, 1), expected_s=2 * HOUR_S, preemptible=False),
        job("unknown", gang(1, 1), preemptible=False),
        job("moves", gang(1, 1)),
    )
    assert sorted(starts(acts)) == ["moves", "short"]
    assert "maintenance" in engine.reasons()[WorkloadId("long")]


# prices


def test_nobody_is_stopped_for_less_than_the_stop_costs() -> None:
    """Both have stood in line for the same reasons; only how much would be lost differs."""
    for resumes, stops in ((True, True), (False, False)):
        engine = desk_with([node("a", 4)])
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
def test_whatever_makes_room_sizes_quotas_and_devices_hold(
    told: list[tuple[int, int, int, bool, int, str, float, bool]],
) -> None:
    lab = Project(name="lab", cohort="c", guarantee={NPU: 5000}, lend={NPU: 3000})
    shop = Project(name="shop", cohort="c", guarantee={NPU: 5000}, quota={NPU: 9000})
    engine = desk_with([node("a", 4, "s"), node("b", 4, "s"), node("c", 4, "t")], lab, shop)
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


def test_who_takes_back_what_it_lent_does_not_become_a_borrower() -> None:
    engine = desk_with([node("a", 8)], *lenders())
    whole = GangSpec(min=1, want=8, each=(ResourceRequest(kind=NPU),))
    decide(engine, 0.0, job("s", whole, project="shop"))
    acts = decide(engine, 10.0, job("l", whole, 10.0, project="lab"))
    assert sorted(starts(acts)) == ["l", "s"]
    sizes = {run.id: len(run.grants) for run in engine.cluster.running.values()}
    assert sizes == {"l": 4, "s": 4}
    assert [engine.decide(float(at)) for at in (20, 700, 1400, 90_000)] == [[], [], [], []]


def test_growth_keeps_topology_and_maintenance() -> None:
    bound = GangSpec(
        min=2, want=4, max=8, each=(ResourceRequest(kind=NPU),), topology=Topology.REQUIRE_SUPERNODE
    )
    engine = desk_with([node("a", 6, "s"), node("b", 6, "t")])
    decide(engine, 0.0, job("g", bound))
    (grown,) = engine.decide(HOUR_S)
    assert isinstance(grown, Resize)
    assert {grant.node for grant in grown.grants} == {"a"}
    spread = GangSpec(
        min=1, want=2, max=8, each=(ResourceRequest(kind=NPU),), topology=Topology.SPREAD
    )
    engine = desk_with([node("a", 4), node("b", 4), node("c", 4)])
    decide(engine, 0.0, job("g", spread))
    (grown,) = engine.decide(HOUR_S)
    assert isinstance(grown, Resize)
    assert sorted(grant.node for grant in grown.grants) == ["a", "b", "c"]
    window = MaintenanceWindow(starts_at=5000.0, ends_at=9000.0)
    engine = desk_with([node("a", 4), node("b", 4, windows=(window,))])
    decide(engine, 0.0, job("g", elastic(2, 4, 8), preemptible=False))
    assert engine.decide(HOUR_S) == []


def test_a_move_takes_no_other_kind_and_nobody_is_stopped_for_an_older_debt() -> None:
    either = GangSpec(
        each=(ResourceRequest(kind=NPU, milli=2000), ResourceRequest(kind=GPU, milli=2000))
    )
    gpus = Node(
        id=NodeId("g"),
        address="",
        devices=tuple(type(d)(kind=GPU, index=d.index) for d in node("g", 4).devices),
    )
    p = Project(name="p", quota={GPU: 0})
    engine = desk_with([node("a", 4), gpus], p)
    decide(engine, 0.0, job("m", either), job("k", gang(1, 1), preemptible=False))
    decide(engine, 100.0, job("n", gang(1, 3), 100.0))
    engine.decide(100.0 + HOUR_S)
    held = (
        {g.kind for g in engine.cluster.running[WorkloadId("m")].grants}
        if (WorkloadId("m") in engine.cluster.running)
        else set()
    )
    assert GPU not in held
    engine = desk_with([node("a", 1), node("b", 1)])
    decide(engine, 0.0, job("a1", gang(1, 1), project="q"), job("b1", gang(1, 1), project="q"))
    engine.cluster.projects = {"q": Project(name="q", quota={NPU: 1000})}
    on_a = GangSpec(each=(ResourceRequest(kind=NPU),), among=NodeAffinity(on=("a",)))
    acts = decide(engine, 10.0, job("h", on_a, 10.0, priority=9))
    assert sum(isinstance(act, Preempt) for act in acts) == 1


def test_work_that_is_lost_is_to_be_done_again() -> None:
    engine = desk_with([node("a", 4)])
    decide(engine, 0.0, job("x", gang(1, 4), resumes=False, expected_s=1e4))
    decide(engine, 3700.0, job("y", gang(1, 4), 3700.0, priority=1))
    assert engine.pending[WorkloadId("x")].done_s == 0.0


def test_an_owner_that_comes_with_a_borrower_has_its_own_a_moment_later() -> None:
    engine = desk_with([node("a", 8)], *lenders())
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
