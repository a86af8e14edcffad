"""Emulated devices: given where there are no real ones or where they are named, never mixed."""

from dataclasses import replace

import pytest

from karez.core.devices import EMULATED, Device, DeviceKind, parse_emulated
from karez.core.gangs import GangSpec
from karez.core.nodes import Node, NodeId, NodeState
from karez.core.resource_requests import ResourceRequest
from karez.core.resource_syntax import parse_resource_request
from karez.scheduling.placement.placement import place_gang, place_more
from karez.scheduling.placement.pool_builder import free_pool

NPU = DeviceKind.NPU
ONE = ResourceRequest(kind=NPU)


def node(name: str, model: str, count: int = 2) -> Node:
    devices = tuple(Device(kind=NPU, index=n, model=model) for n in range(count))
    return Node(id=NodeId(name), address="", supernode=name, devices=devices)


def gang(workers: int, need: ResourceRequest = ONE) -> GangSpec:
    return GangSpec(min=workers, want=workers, each=(need,))


def test_a_pool_without_real_devices_gives_emulated_ones_and_says_so() -> None:
    grants = place_gang(gang(4), free_pool([node("a", EMULATED), node("b", EMULATED)], ()))
    assert grants is not None
    assert all(grant.is_emulated for grant in grants)
    assert {grant.device_name for grant in grants} == {"emulated npu"}


def test_beside_real_devices_they_are_given_only_by_name() -> None:
    pool = free_pool([node("a", EMULATED), node("b", "910B")], ())
    assert place_gang(gang(3), pool.fork()) is None
    real = place_gang(gang(2), pool.fork())
    assert real is not None
    assert [grant.is_emulated for grant in real] == [False, False]
    named = place_gang(gang(2, parse_resource_request(f"npu=1,model={EMULATED}")), pool)
    assert named is not None
    assert {grant.node for grant in named} == {"a"}


def test_a_real_node_that_is_lost_leaves_no_room_to_emulated_ones() -> None:
    lost = replace(node("b", "910B"), state=NodeState.LOST)
    assert place_gang(gang(1), free_pool([node("a", EMULATED), lost], ())) is None


def test_a_gang_on_emulated_devices_stays_on_such() -> None:
    before = free_pool([node("a", EMULATED)], ())
    grants = place_gang(gang(1), before)
    assert grants is not None
    need = grants[0].need_among((ONE,))
    pool = free_pool([node("b", "910B"), node("c", EMULATED)], ())
    more = place_more(need, 4, pool)
    assert [grant.node for grant in more] == ["c", "c"]


@pytest.mark.parametrize("text", ["gpu=2", "npu", "npu=0", "npu=x", "npu=2000", "npu=-1"])
def test_only_a_number_of_npus_can_be_emulated(text: str) -> None:
    with pytest.raises(ValueError, match="npu=COUNT"):
        parse_emulated(text)
    assert parse_emulated("npu=4") == 4
    assert parse_emulated("") == 0
