"""Elastic gangs: they grow into idle devices, shrink for others, and keep their constraints."""

import pytest

from karez.core.gangs import GangSpec, Topology
from karez.core.identity import Project
from karez.core.nodes import MaintenanceWindow
from karez.core.resource_requests import ResourceRequest
from karez.core.workloads import WorkloadId
from karez.scheduling.decisions import Resize, Start
from karez.scheduling.preemption.elastic import RESIZE_S
from tests.scheduling.builders import HOUR_S, NPU, decide, elastic, engine_with, job
from tests.scheduling.test_snapshot import gang, node


def test_an_elastic_gang_grows_into_idle_devices_and_shrinks_again() -> None:
    engine = engine_with([node("a", 8)])
    (begun,) = decide(engine, 0.0, job("e", elastic(1, 2, 8), preemptible=False))
    assert isinstance(begun, Start)
    assert len(begun.grants) == 2
    assert engine.decide(4.0) == []  # it has only just begun
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


def test_only_gangs_with_a_maximum_grow_and_within_quota() -> None:
    lab = Project(name="p", quota={NPU: 5000})
    engine = engine_with([node("a", 8)], lab)
    decide(engine, 0.0, job("e", elastic(1, 2, 8)), job("f", gang(2, 1, low=1)))
    (grown,) = engine.decide(HOUR_S)
    assert isinstance(grown, Resize)
    assert (grown.id, len(grown.grants)) == ("e", 3)


def test_half_the_workers_take_twice_as_long() -> None:
    engine = engine_with([node("a", 4)])
    decide(engine, 0.0, job("e", elastic(1, 4, 4), expected_s=1000.0, preemptible=False))
    assert engine.cluster.running[WorkloadId("e")].ends_by == 1000.0
    decide(engine, 500.0, job("n", gang(1, 2), 500.0, priority=1, expected_s=100.0))
    run = engine.cluster.running[WorkloadId("e")]
    assert run.work_rate == 0.5
    assert run.ends_by == pytest.approx(1500.0)


def test_growth_respects_topology_and_maintenance() -> None:
    bound = GangSpec(
        min=2, want=4, max=8, each=(ResourceRequest(kind=NPU),), topology=Topology.REQUIRE_SUPERNODE
    )
    engine = engine_with([node("a", 6, "s"), node("b", 6, "t")])
    decide(engine, 0.0, job("g", bound))
    (grown,) = engine.decide(HOUR_S)
    assert isinstance(grown, Resize)
    assert {grant.node for grant in grown.grants} == {"a"}
    spread = GangSpec(
        min=1, want=2, max=8, each=(ResourceRequest(kind=NPU),), topology=Topology.SPREAD
    )
    engine = engine_with([node("a", 4), node("b", 4), node("c", 4)])
    decide(engine, 0.0, job("g", spread))
    (grown,) = engine.decide(HOUR_S)
    assert isinstance(grown, Resize)
    assert sorted(grant.node for grant in grown.grants) == ["a", "b", "c"]
    window = MaintenanceWindow(starts_at=5000.0, ends_at=9000.0)
    engine = engine_with([node("a", 4), node("b", 4, windows=(window,))])
    decide(engine, 0.0, job("g", elastic(2, 4, 8), preemptible=False))
    assert engine.decide(HOUR_S) == []


def test_a_gang_grows_once_what_it_gains_is_worth_its_pause() -> None:
    engine = engine_with([node("a", 8), node("b", 8)])
    decide(engine, 0.0, job("e", elastic(1, 10, 16)), job("n", gang(1, 6), preemptible=False))
    engine.finish(WorkloadId("n"))
    decide(engine, 1.0, job("m", gang(1, 5), 1.0, preemptible=False))
    assert engine.decide(RESIZE_S * 10 - 1) == []  # one more for ten
    (grown,) = engine.decide(RESIZE_S * 10)
    assert isinstance(grown, Resize)
    assert len(grown.grants) == 11
    engine.finish(WorkloadId("m"))
    at = RESIZE_S * 10
    assert engine.decide(at + RESIZE_S * 2) == []
    (grown,) = engine.decide(at + RESIZE_S * 2.2)  # five more for eleven
    assert isinstance(grown, Resize)
    assert len(grown.grants) == 16
