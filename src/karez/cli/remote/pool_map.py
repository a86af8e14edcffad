"""Draw the pool as a map: one cell per device, supernode by supernode."""

from collections.abc import Mapping, Sequence

from karez.core.devices import Device, DeviceKind, Health
from karez.core.nodes import Node, NodeState
from karez.core.units import MILLI
from karez.core.workloads import Allocation

FREE, PART, FULL, OUT = "·", "▒", "█", "x"
LEGEND = f"{FULL} held  {PART} shared  {FREE} free  {OUT} out of use"
MAX_CELLS = 64
"""Cells of one node; a cell of a larger node represents several devices."""
_USABLE = (Health.HEALTHY, Health.SUB_HEALTHY)


def pool_map(nodes: Sequence[Node], held: Mapping[str, Allocation]) -> list[str]:
    """Draw lines of `supernode  node cells`; cells are accelerators, or cores without them."""
    used: dict[tuple[str, str, int], int] = {}
    for allocation in held.values():
        for grant in allocation.grants:
            for index, milli in grant.devices:
                key = (grant.node, grant.kind.value, index)
                used[key] = used.get(key, 0) + milli
    ordered = sorted(nodes, key=lambda node: (node.supernode, node.id))
    names = max((len(node.id) for node in ordered), default=0)
    blocks = max((len(node.supernode) for node in ordered), default=0)
    lines, before = [], ""
    for node in ordered:
        block = node.supernode if node.supernode != before else ""
        before = node.supernode
        lines.append(f"{block:<{blocks}}  {node.id:<{names}}  {_cells(node, used)}".rstrip())
    return lines


def _cells(node: Node, used: Mapping[tuple[str, str, int], int]) -> str:
    shown = [d for d in node.devices if d.kind in (DeviceKind.NPU, DeviceKind.GPU)]
    shown = shown or [d for d in node.devices if d.kind == DeviceKind.CPU]
    per_cell = -(-len(shown) // MAX_CELLS) or 1
    groups = [shown[start : start + per_cell] for start in range(0, len(shown), per_cell)]
    return "".join(_cell(node, group, used) for group in groups)


def _cell(node: Node, devices: Sequence[Device], used: Mapping[tuple[str, str, int], int]) -> str:
    if node.state == NodeState.LOST or all(device.health not in _USABLE for device in devices):
        return OUT
    milli = sum(used.get((node.id, device.kind.value, device.index), 0) for device in devices)
    if milli == 0:
        return OUT if node.state in (NodeState.CORDONED, NodeState.EVICTED) else FREE
    return FULL if milli >= MILLI * len(devices) else PART
