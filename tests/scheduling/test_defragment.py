"""Defragmentation, drains and maintenance: running work is moved, at a cost."""

import pytest

from karez.core.gangs import GangSpec
from karez.core.identity import Project
from karez.core.node_affinity import NodeAffinity
from karez.core.nodes import MaintenanceWindow, Node, NodeId, NodeState
from karez.core.resource_requests import ResourceRequest
from karez.core.workloads import WorkloadId
from karez.scheduling.decisions import Preempt, Start
from karez.scheduling.engine import SchedulingEngine
from karez.scheduling.preemption.defragment import plan_defrag
from karez.scheduling.queue.order import (
    RESTART_S,
)
from karez.scheduling.state_changes import relocate_workloads
from tests.scheduling.builders import GPU, HOUR_S, NPU, decide, engine_with, job, starts
from tests.scheduling.test_snapshot import gang, node


def scattered(*, resumes: bool = True, preemptible: bool = True) -> SchedulingEngine:
    """Two nodes half full of single workers that may be moved."""
    engine = engine_with([node("a", 4), node("b", 4)])
    workers = [job(f"w{i}", gang(1, 1), resumes=resumes, preemptible=preemptible) for i in range(8)]
    decide(engine, 0.0, *workers)
    for number in (0, 1, 4, 5):
        engine.finish(WorkloadId(f"w{number}"))
    return engine


def test_defragmentation_makes_room_for_a_gang_that_has_waited_long() -> None:
    engine = scattered()
    assert decide(engine, 10.0, job("big", gang(1, 4), 10.0)) == []
    acts = engine.decide(10.0 + HOUR_S)
    moved = [act.id for act in acts if isinstance(act, Preempt)]
    assert len(moved) == 2
    assert set(starts(acts)) == {*moved, "big"}
    free = engine.cluster.pool.inventory.arrays.free
    assert (free == 0).all()


def test_work_that_cannot_resume_or_is_not_preemptible_is_not_moved() -> None:
    for resumes, preemptible in ((False, True), (True, False)):
        engine = scattered(resumes=resumes, preemptible=preemptible)
        assert decide(engine, 10.0, job("big", gang(1, 4), 10.0)) == []
        assert engine.decide(10.0 + HOUR_S) == []
        assert plan_defrag(engine.cluster, HOUR_S).relocations == ()


def test_a_defragmentation_plan_frees_a_node_and_states_its_cost() -> None:
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


def test_preemptible_work_leaves_a_draining_node() -> None:
    closing = node("a", 2, state=NodeState.DRAINING)
    held = engine_with([node("a", 2)])
    decide(held, 0.0, job("m", gang(1, 1)), job("k", gang(1, 1), preemptible=False))
    runs = list(held.cluster.running.values())
    engine = engine_with([closing, node("b", 2)])
    for run in runs:
        engine.cluster.add(run)
    stop, start = engine.decide(1.0)
    assert isinstance(stop, Preempt)
    assert (stop.id, stop.by) == ("m", None)
    assert isinstance(start, Start)
    assert start.grants[0].node == "b"


def test_only_work_that_ends_in_time_is_placed_before_maintenance() -> None:
    window = MaintenanceWindow(starts_at=HOUR_S, ends_at=2 * HOUR_S)
    engine = engine_with([node("a", 4, windows=(window,))])
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


def test_a_move_keeps_the_kind_of_device_and_reclaim_is_not_repeated() -> None:
    either = GangSpec(
        each=(ResourceRequest(kind=NPU, milli=2000), ResourceRequest(kind=GPU, milli=2000))
    )
    gpus = Node(
        id=NodeId("g"),
        address="",
        devices=tuple(type(d)(kind=GPU, index=d.index) for d in node("g", 4).devices),
    )
    p = Project(name="p", quota={GPU: 0})
    engine = engine_with([node("a", 4), gpus], p)
    decide(engine, 0.0, job("m", either), job("k", gang(1, 1), preemptible=False))
    decide(engine, 100.0, job("n", gang(1, 3), 100.0))
    engine.decide(100.0 + HOUR_S)
    held = (
        {g.kind for g in engine.cluster.running[WorkloadId("m")].grants}
        if (WorkloadId("m") in engine.cluster.running)
        else set()
    )
    assert GPU not in held
    engine = engine_with([node("a", 1), node("b", 1)])
    decide(engine, 0.0, job("a1", gang(1, 1), project="q"), job("b1", gang(1, 1), project="q"))
    engine.cluster.projects = {"q": Project(name="q", quota={NPU: 1000})}
    on_a = GangSpec(each=(ResourceRequest(kind=NPU),), among=NodeAffinity(on=("a",)))
    acts = decide(engine, 10.0, job("h", on_a, 10.0, priority=9))
    assert sum(isinstance(act, Preempt) for act in acts) == 1
