"""Reasons are true, and every proposed change really starts the workload: tried, not trusted."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from karez.core.devices import DeviceKind
from karez.core.explanations import SuggestedChange
from karez.core.gangs import GangRole, GangSpec, Topology
from karez.core.identity import Project
from karez.core.node_affinity import NodeAffinity
from karez.core.nodes import MaintenanceWindow, Node, NodeId, NodeState
from karez.core.resource_requests import ResourceRequest
from karez.core.workloads import Allocation, WorkloadId
from karez.scheduling.decisions import Start
from karez.scheduling.explain.explain import explain, explain_all
from karez.scheduling.explain.hypothetical import gang_after, nodes_after, project_after
from karez.scheduling.queue.order import PendingWorkload, SchedulingPolicy
from karez.scheduling.snapshot import AllocatedWorkload, Snapshot, plan
from tests.fakes import cpu_node
from tests.scheduling.test_snapshot import gang, names, node, waiting

NPU = DeviceKind.NPU
NOW = 1e6


def apply_change(snapshot: Snapshot, ident: WorkloadId, change: SuggestedChange) -> Snapshot:
    """Return the snapshot as it would be after a change for one pending workload."""
    waiting = [workload_after(w, change) if w.id == ident else w for w in snapshot.waiting]
    project = next((w.project for w in snapshot.waiting if w.id == ident), "")
    projects = dict(snapshot.projects)
    if project in projects:
        projects[project] = project_after(projects[project], change)
    return replace(
        snapshot,
        nodes=nodes_after(snapshot.nodes, change),
        waiting=waiting,
        running=[run for run in snapshot.running if run.allocation.workload not in change.stop],
        projects=projects,
        over_budget={} if change.spend else snapshot.over_budget,
    )


def workload_after(waiting: PendingWorkload, change: SuggestedChange) -> PendingWorkload:
    """Return a pending workload after a change."""
    priority = waiting.priority if change.priority is None else change.priority
    return replace(waiting, gang=gang_after(waiting.gang, change), priority=priority)


def run_all(snapshot: Snapshot) -> Snapshot:
    """The snapshot after all that can start has."""
    specs = {one.id: one for one in snapshot.waiting}
    started = [d for d in plan(snapshot, now=0.0) if isinstance(d, Start)]
    running = [
        AllocatedWorkload(
            allocation=Allocation(workload=d.id, epoch=1, grants=d.grants, since=0.0),
            project=specs[d.id].project,
        )
        for d in started
    ]
    left = [one for one in snapshot.waiting if one.id not in {d.id for d in started}]
    return Snapshot(nodes=snapshot.nodes, waiting=left, running=running, projects=snapshot.projects)


needs = st.builds(
    ResourceRequest,
    kind=st.sampled_from([NPU, NPU, DeviceKind.CPU]),
    milli=st.sampled_from([250, 500, 1000, 2000, 8000]),
    memory_bytes=st.sampled_from([0, 16 << 30]),
)
gangs = st.builds(
    lambda low, more, each, topology, among, roles: GangSpec(
        min=low, want=low + more, each=tuple(each), topology=topology, among=among, roles=roles
    ),
    st.integers(1, 6),
    st.integers(0, 2),
    st.lists(needs, min_size=1, max_size=2),
    st.sampled_from(Topology),
    st.sampled_from(
        [
            NodeAffinity(),
            NodeAffinity(),
            NodeAffinity(),
            NodeAffinity(on=("n1",)),
            NodeAffinity(off=("n1", "n2")),
        ]
    ),
    st.sampled_from([(), (), (GangRole(name="r", each=(ResourceRequest(kind=NPU, milli=500),)),)]),
)
jobs = st.builds(
    lambda asked, project, priority: (asked, project, priority),
    gangs,
    st.sampled_from(["p", "q"]),
    st.integers(0, 2),
)
pools = st.lists(
    st.builds(
        lambda index, npus, block, shut: node(
            f"n{index}",
            npus,
            f"s{block}",
            state=NodeState.CORDONED if shut else NodeState.READY,
        ),
        st.integers(0, 9),
        st.integers(0, 8),
        st.integers(0, 2),
        st.booleans(),
    ),
    unique_by=lambda n: n.id,
    max_size=5,
)


def teams(caps: dict[DeviceKind, int], guarantees: tuple[int, ...] | None) -> dict[str, Project]:
    """Two projects, alone or in a cohort."""
    if guarantees is None:
        return {"p": Project(name="p", quota=caps), "q": Project(name="q")}
    own, lent, others, their_lent = (1000 * devices for devices in guarantees)
    own = min(own, caps.get(NPU, own))
    p = Project(
        name="p",
        cohort="c",
        quota=caps,
        guarantee={NPU: own},
        lend={NPU: lent},
    )
    q = Project(name="q", cohort="c", guarantee={NPU: others}, lend={NPU: their_lent})
    return {"p": p, "q": q}


@pytest.mark.story
@settings(max_examples=500, deadline=None)
@given(
    pool=pools,
    cpus=st.integers(0, 4),
    asked=st.lists(jobs, min_size=1, max_size=10),
    quota=st.one_of(st.none(), st.integers(1, 12)),
    guarantees=st.one_of(st.none(), st.tuples(*[st.integers(0, 8)] * 4)),
    over=st.booleans(),
)
def test_every_proposed_change_starts_the_workload(
    pool: list[Node],
    cpus: int,
    asked: list[tuple[GangSpec, str, int]],
    quota: int | None,
    guarantees: tuple[int, ...] | None,
    over: bool,
) -> None:
    limits = {} if quota is None else {NPU: quota * 1000}
    queue = [
        waiting(f"j{i}", each, project=project, priority=priority, since=float(i), order=i)
        for i, (each, project, priority) in enumerate(asked)
    ]
    begun = Snapshot(
        nodes=[*pool, *([cpu_node("c", cpus)] if cpus else [])],
        waiting=queue,
        projects=teams(limits, guarantees),
    )
    snapshot = replace(run_all(begun), over_budget={"p": "p has spent all"} if over else {})
    answers = explain_all(snapshot, now=NOW)
    assert set(answers) == {one.id for one in snapshot.waiting}
    for ident, why in answers.items():
        assert why.reason
        assert why.changes, why
        for change in why.changes:
            assert change.what
            after = plan(apply_change(snapshot, ident, change), now=NOW)
            assert ident in {d.id for d in after if isinstance(d, Start)}, change


def full_house() -> Snapshot:
    """One project at its quota, one large job that holds most of the pool, one that waits."""
    return run_all(
        Snapshot(
            nodes=[node("a", 8), node("b", 8, state=NodeState.CORDONED)],
            waiting=[
                waiting("large", gang(6), project="q"),
                waiting("small", gang(1), project="q", since=1.0),
                waiting("asks", gang(4), project="p", since=2.0),
            ],
            projects={"p": Project(name="p", quota={NPU: 3000})},
        )
    )


def test_the_answer_names_the_quota_the_holders_and_the_smallest_change() -> None:
    why = explain(full_house(), WorkloadId("asks"), now=NOW)
    assert why is not None
    assert "quota of project p: 0 of 3 npu held, 4 more asked" in why.reason
    (line,) = why.quota
    assert (line.limit, line.held, line.asked) == (3.0, 0.0, 4.0)
    assert [(holder.id, holder.devices) for holder in why.holders] == [("large", 6), ("small", 1)]
    (hurdle,) = why.hurdles
    assert (hurdle.workers, hurdle.needed) == (1, 4)
    assert hurdle.nodes == {"cordoned": 1}
    assert hurdle.devices_free == 1.0
    first = why.changes[0]
    assert first.uncordon == ("b",)
    assert first.quota == {NPU: 4000}
    assert "karez projects quota p npu=4" in first.what
    stops = [change.stop for change in why.changes if change.stop]
    assert stops == [("large",)]  # the smaller one would not do


def test_a_project_that_may_spend_no_more_waits_for_money_and_the_answer_says_so() -> None:
    snapshot = Snapshot(
        nodes=[node("a", 8)],
        waiting=[waiting("asks", gang(4)), waiting("others", gang(2), project="q")],
        projects={"p": Project(name="p"), "q": Project(name="q")},
        over_budget={"p": "project p has spent its 3 for this month"},
    )
    assert names(plan(snapshot, now=NOW)) == {"asks": False, "others": True}
    why = explain(snapshot, WorkloadId("asks"), now=NOW)
    assert why is not None
    assert (why.reason, why.starts) == ("project p has spent its 3 for this month", None)
    (change,) = why.changes
    assert "`karez projects limits p --spend`" in change.what


def test_a_start_is_estimated_from_what_is_known_and_from_what_has_run() -> None:
    snapshot = Snapshot(
        nodes=[node("a", 8)],
        waiting=[waiting("asks", gang(8), since=900.0)],
        running=full_house().running[:1],
    )
    why = explain(snapshot, WorkloadId("asks"), now=1000.0)
    assert why is not None
    assert why.starts is not None
    assert why.starts.early == 1250.0
    assert why.starts.middle == 2000.0
    assert why.starts.late == 5000.0


def test_a_kind_that_nobody_has_is_said_and_another_or_a_new_node_proposed() -> None:
    asked = PendingWorkload(id=WorkloadId("j"), project="p", gang=gang(2), priority=0, since=0.0)
    why = explain(Snapshot(nodes=[cpu_node("c", 4)], waiting=[asked]), asked.id, now=NOW)
    assert why is not None
    assert "no node has npu devices" in why.reason
    assert [change.kind for change in why.changes] == [DeviceKind.CPU, None]
    assert [one.id for one in why.changes[1].add] == [NodeId("new-0"), NodeId("new-1")]


def test_maintenance_and_node_sets_are_reasons_with_a_way_out() -> None:
    window = MaintenanceWindow(starts_at=NOW + 100.0, ends_at=NOW + 200.0)
    nodes = [node("a", 4, windows=(window,)), node("b", 1)]
    long = waiting("long", gang(1, 2), since=0.0, expected_s=1000.0, preemptible=False, order=0)
    there = waiting(
        "there",
        GangSpec(each=(ResourceRequest(kind=NPU),), among=NodeAffinity(on=("c",))),
        since=1.0,
        order=1,
    )
    snapshot = Snapshot(nodes=nodes, waiting=[long, there])
    answers = explain_all(snapshot, now=NOW)
    why = answers[WorkloadId("long")]
    assert "maintenance" in why.reason
    assert why.starts is not None
    assert why.starts.middle == NOW + 200.0
    called_off = next(change for change in why.changes if change.unplan)
    assert "karez pool maintenance a --none" in called_off.what
    elsewhere = next(change for change in answers[WorkloadId("there")].changes if change.anywhere)
    for ident, change in (("long", called_off), ("there", elsewhere)):
        after = apply_change(snapshot, WorkloadId(ident), change)
        assert ident in {d.id for d in plan(after, now=NOW) if isinstance(d, Start)}


def test_why_says_who_makes_room_already() -> None:
    held = plan(Snapshot(nodes=[node("a", 4)], waiting=[waiting("low", gang(1, 4))]), now=0.0)
    (start,) = (one for one in held if isinstance(one, Start))
    low = AllocatedWorkload(
        allocation=Allocation(workload=start.id, epoch=1, grants=start.grants, since=0.0),
        project="p",
        waiting=waiting("low", gang(1, 4)),
    )
    high = waiting("high", gang(1, 4), since=1.0, priority=5)
    snapshot = Snapshot(nodes=[node("a", 4)], waiting=[high], running=[low])
    why = explain_all(snapshot, now=10.0, policy=SchedulingPolicy(preempts=True))[
        WorkloadId("high")
    ]
    assert why.reason == "it starts as soon as low made room for it"
    assert "low" not in explain_all(snapshot, now=10.0)[WorkloadId("high")].reason
