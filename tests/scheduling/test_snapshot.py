from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from karez.core.devices import Device, DeviceKind, Health
from karez.core.gangs import GangSpec, Topology
from karez.core.grants import Grant
from karez.core.identity import Project
from karez.core.nodes import Node, NodeId, NodeState
from karez.core.resource_requests import ResourceRequest
from karez.core.workloads import Allocation, WorkloadId
from karez.scheduling.decisions import Decision, Start, Wait
from karez.scheduling.placement.capacity import Pool
from karez.scheduling.placement.fit_report import explain_unplaced
from karez.scheduling.placement.placement import place_gang, place_more
from karez.scheduling.placement.pool_builder import free_pool
from karez.scheduling.queue.order import PendingWorkload, SchedulingPolicy
from karez.scheduling.snapshot import AllocatedWorkload, Snapshot, plan
from tests.fakes import cpu_node

NPU = DeviceKind.NPU


def node(name: str, npus: int, supernode: str = "", **more: object) -> Node:
    devices = tuple(Device(kind=NPU, index=index) for index in range(npus))
    fields: dict[str, object] = {"memory_bytes": 64 << 30, "supernode": supernode, **more}
    return Node(id=NodeId(name), address="", devices=devices, **fields)  # type: ignore[arg-type]


def gang(workers: int, npus: float = 1, *, low: int = 0, **more: object) -> GangSpec:
    need = ResourceRequest(kind=NPU, milli=round(npus * 1000))
    return GangSpec(min=low or workers, want=workers, each=(need,), **more)  # type: ignore[arg-type]


def place(asked: GangSpec, pool: Pool) -> tuple[Grant, ...] | str:
    return place_gang(asked, pool) or explain_unplaced(asked, pool)


def waiting(name: str, asked: GangSpec, **more: object) -> PendingWorkload:
    fields: dict[str, object] = {"project": "p", "priority": 0, "since": 0.0, **more}
    return PendingWorkload(id=WorkloadId(name), gang=asked, **fields)  # type: ignore[arg-type]


def names(decisions: tuple[Decision, ...]) -> dict[str, bool]:
    return {str(d.id): isinstance(d, Start) for d in decisions}


nodes = st.lists(
    st.builds(
        lambda index, npus, block: node(f"n{index}", npus, f"s{block}"),
        st.integers(0, 9),
        st.integers(0, 8),
        st.integers(0, 2),
    ),
    unique_by=lambda n: n.id,
    max_size=6,
)
needs = st.builds(
    ResourceRequest,
    kind=st.just(NPU),
    milli=st.sampled_from([250, 500, 1000, 2000, 3000]),
    memory_bytes=st.sampled_from([0, 16 << 30]),
)
gangs = st.builds(
    lambda low, more, each, topology: GangSpec(
        min=low, want=low + more, each=tuple(each), topology=topology
    ),
    st.integers(1, 5),
    st.integers(0, 3),
    st.lists(needs, min_size=1, max_size=2),
    st.sampled_from(Topology),
)


@given(pool_nodes=nodes, asked=gangs)
def test_placing_never_promises_what_a_node_does_not_have(
    pool_nodes: list[Node], asked: GangSpec
) -> None:
    answer = place(asked, free_pool(pool_nodes, ()))
    if isinstance(answer, str):
        assert answer
        return
    assert asked.min <= len(answer) <= asked.want
    held: Counter[tuple[str, int]] = Counter()
    memory: Counter[str] = Counter()
    for grant in answer:
        memory[grant.node] += grant.memory_bytes
        for index, milli in grant.devices:
            held[grant.node, index] += milli
    has = {(n.id, d.index) for n in pool_nodes for d in n.devices}
    assert set(held) <= has
    assert all(milli <= 1000 for milli in held.values())
    assert all(memory[n.id] <= n.memory_bytes for n in pool_nodes)
    assert len({grant.milli for grant in answer}) == 1
    if asked.topology == Topology.SPREAD:
        assert len({grant.node for grant in answer}) == len(answer)
    if asked.topology == Topology.REQUIRE_SUPERNODE:
        blocks = {n.id: n.supernode for n in pool_nodes}
        assert len({blocks[grant.node] for grant in answer}) == 1


@given(pool_nodes=nodes, asked=gangs)
def test_a_refused_gang_leaves_the_pool_as_it_was(pool_nodes: list[Node], asked: GangSpec) -> None:
    pool = free_pool(pool_nodes, ())
    if isinstance(place(asked, pool), str):
        fresh = free_pool(pool_nodes, ())
        for name in ("free", "bulk", "busy"):
            now, then = (getattr(p.inventory.arrays, name) for p in (pool, fresh))
            assert (now == then).all()


@given(pool_nodes=nodes, all_gangs=st.lists(gangs, max_size=8))
def test_a_plan_never_grants_a_device_twice(
    pool_nodes: list[Node], all_gangs: list[GangSpec]
) -> None:
    queue = [waiting(f"j{i}", asked, since=float(i)) for i, asked in enumerate(all_gangs)]
    decisions = plan(Snapshot(nodes=pool_nodes, waiting=queue), now=0.0)
    assert {d.id for d in decisions} == {w.id for w in queue}
    held: Counter[tuple[str, int]] = Counter()
    for decision in decisions:
        if isinstance(decision, Start):
            for grant in decision.grants:
                for index, milli in grant.devices:
                    held[grant.node, index] += milli
        elif isinstance(decision, Wait):
            assert decision.reason
    assert all(milli <= 1000 for milli in held.values())
    assert decisions == plan(Snapshot(nodes=pool_nodes, waiting=queue), now=0.0)


def test_a_gang_takes_the_fewest_nodes_and_the_tightest_last() -> None:
    pool = free_pool([node("a", 8), node("b", 3), node("c", 2)], ())
    answer = place(gang(10), pool)
    assert not isinstance(answer, str)
    assert Counter(grant.node for grant in answer) == {"a": 8, "c": 2}


def test_a_gang_stays_in_one_supernode_where_it_fits() -> None:
    many = [node("a", 4, "s1"), node("b", 8, "s2"), node("c", 4, "s1")]
    answer = place(gang(8, topology=Topology.PREFER_SUPERNODE), free_pool(many, ()))
    assert not isinstance(answer, str)
    assert {grant.node for grant in answer} in ({"b"}, {"a", "c"})
    too_many = place(gang(9, topology=Topology.REQUIRE_SUPERNODE), free_pool(many, ()))
    assert isinstance(too_many, str)


def test_the_faster_alternative_wins() -> None:
    each = (ResourceRequest(kind=DeviceKind.CPU, speed=0.1), ResourceRequest(kind=NPU, speed=1.0))
    asked = GangSpec(min=1, want=2, each=each)
    answer = place(asked, free_pool([cpu_node("c", 8), node("n", 2)], ()))
    assert not isinstance(answer, str)
    assert {grant.kind for grant in answer} == {NPU}


def test_a_refusal_counts_the_nodes_ruled_out_by_reason() -> None:
    answer = place(gang(4, 8), free_pool([node("a", 8), node("b", 4)], ()))
    assert isinstance(answer, str)
    assert "1 of 4 workers fit" in answer
    none = place(gang(1), free_pool([cpu_node("c")], ()))
    assert isinstance(none, str)
    assert "no node has npu devices" in none


def test_sick_devices_and_closed_nodes_take_no_work() -> None:
    sick = replace(node("a", 1), devices=(Device(kind=NPU, index=0, health=Health.SEPARATED),))
    closed = node("b", 8, state=NodeState.CORDONED)
    answer = place(gang(1), free_pool([sick, closed], ()))
    assert isinstance(answer, str)
    assert "1 cordoned" in answer


def test_higher_priority_goes_first_and_smaller_ones_fill_gaps() -> None:
    queue = [
        waiting("old-big", gang(8), since=1.0),
        waiting("urgent", gang(3), since=5.0, priority=9),
        waiting("small", gang(1), since=6.0),
    ]
    assert names(plan(Snapshot(nodes=[node("a", 8)], waiting=queue), now=10.0)) == {
        "urgent": True,
        "old-big": False,
        "small": True,
    }


def test_the_first_in_line_is_not_starved() -> None:
    """After its patience is over, only what surely ends in time may pass."""
    queue = [
        waiting("big", gang(8), since=0.0),
        waiting("unknown", gang(1), since=1.0),
        waiting("short", gang(1), since=2.0, max_duration_s=10.0),
    ]
    held = place(gang(4), free_pool([node("a", 8)], ()))
    assert not isinstance(held, str)
    allocation = Allocation(workload=WorkloadId("r"), epoch=1, grants=held)
    late = SchedulingPolicy().reserve_after_s + 1
    running = [AllocatedWorkload(allocation=allocation, project="p", ends_by=late + 60.0)]
    snapshot = Snapshot(nodes=[node("a", 8)], waiting=queue, running=running)
    assert names(plan(snapshot, now=late)) == {"big": False, "unknown": False, "short": True}


def test_a_project_stays_within_its_quota_and_shrinks_to_fit_it() -> None:
    projects = {"p": Project(name="p", quota={NPU: 3000})}
    queue = [waiting("a", gang(4, low=1)), waiting("b", gang(1), since=1.0)]
    snapshot = Snapshot(nodes=[node("n", 8)], waiting=queue, projects=projects)
    decisions = {d.id: d for d in plan(snapshot, now=0.0)}
    first = decisions[WorkloadId("a")]
    assert isinstance(first, Start)
    assert len(first.grants) == 3
    second = decisions[WorkloadId("b")]
    assert isinstance(second, Wait)
    assert "quota of project p: 3 of 3 npu held, 1 more asked" in second.reason


def test_more_workers_are_found_off_the_lost_node() -> None:
    pool = free_pool([node("a", 8), node("b", 1)], ())
    assert [
        g.node
        for g in place_more(ResourceRequest(kind=NPU), 2, pool, avoid=frozenset({NodeId("a")}))
    ] == ["b"]
