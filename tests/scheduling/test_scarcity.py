"""Nodes of a model that few can do without are kept for those."""

from dataclasses import replace

from karez.core.devices import Device, DeviceKind
from karez.core.gangs import GangSpec
from karez.core.node_affinity import NodeAffinity
from karez.core.nodes import NodeId
from karez.core.resource_requests import ResourceRequest
from karez.scheduling.decision_log import ClusterDelta, RecordedEngine
from karez.scheduling.decisions import Start
from karez.scheduling.placement.inventory import Shape, Supply
from karez.scheduling.placement.request_mix import PPM, request_mix
from karez.simulation.verify_log import verify_log
from tests.scheduling.builders import job
from tests.scheduling.test_snapshot import node

ANY = ResourceRequest(kind=DeviceKind.NPU)
SCARCE = ResourceRequest(kind=DeviceKind.NPU, models=("scarce",))
SUPPLY = Supply(milli=(8000, 2000), bulk=(100_000, 0, 0, 0))


def test_demand_for_few_models_makes_them_scarce() -> None:
    plain, named = Shape(devices=1), Shape(devices=1, models=0b10)
    assert request_mix([plain] * 4, SUPPLY).scarcity[:2].tolist() == [0, 0]
    # 3 of 4 may go anywhere: 0.75 per device; the fourth asks 10 x 1/4 of 2 devices: 1.25 more.
    assert request_mix([plain] * 3 + [named], SUPPLY).scarcity[:2].tolist() == [0, PPM]
    # 19 of 20 anywhere; the last asks 10 x 1/20 of 2 devices.
    assert request_mix([plain] * 19 + [named], SUPPLY).scarcity[:2].tolist() == [0, PPM // 4]
    assert not request_mix([named]).scarcity.any()  # the supply is not known


def test_cores_of_workers_without_devices_count_where_cores_run_out_first() -> None:
    with_device, without = Shape(devices=1, bulk=(4000, 0, 0, 0)), Shape(bulk=(8000, 0, 0, 0))
    assert request_mix([with_device, without], SUPPLY).per_device[0] == 12_000
    roomy = Supply(milli=SUPPLY.milli, bulk=(120_000, 0, 0, 0))
    assert request_mix([with_device, without], roomy).per_device[0] == 4000
    assert request_mix([with_device, without]).per_device[0] == 4000


def test_an_engine_learns_what_is_scarce_and_a_log_says_so() -> None:
    lines: list[str] = []
    # Without anyone who asks for the scarce model, the tighter node is the better one.
    assert _started_on(ANY, lines=lines) == ["b"]
    assert verify_log(lines).line is None
    lines.clear()
    assert _started_on(SCARCE, lines=lines) == ["a"]
    assert verify_log(lines).line is None


def test_a_gang_leaves_a_scarce_supernode_to_those_who_need_it() -> None:
    assert _started_on(ANY, workers=2) == ["b", "b"]
    assert _started_on(SCARCE, workers=2) == ["a", "a"]


def _started_on(
    asked_by_others: ResourceRequest, workers: int = 1, lines: list[str] | None = None
) -> list[NodeId]:
    """Nodes that a gang without wishes gets, while others run that ask for something."""
    recorded = RecordedEngine(learns=True, write=None if lines is None else lines.append)
    scarce = tuple(Device(kind=DeviceKind.NPU, index=n, model="scarce") for n in range(3))
    nodes = (node("a", 4), replace(node("b", 0), devices=scarce))
    other = GangSpec(min=1, want=1, each=(asked_by_others,), among=NodeAffinity(on=("nowhere",)))
    others = tuple(job(f"other-{n}", other) for n in range(8))
    recorded.advance(ClusterDelta(at=0.0, is_reset=True, nodes=nodes, arrived=others))
    gang = GangSpec(min=workers, want=workers, each=(ANY,))
    (start,) = recorded.advance(ClusterDelta(at=1.0, arrived=(job("new", gang),)))
    assert isinstance(start, Start)
    return [grant.node for grant in start.grants]
