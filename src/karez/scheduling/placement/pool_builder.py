"""Builds the pool of free capacity from nodes and the grants that are held on them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from karez.core.devices import EMULATED, IN_BYTES, Device, DeviceKind, Health
from karez.core.grants import Grant
from karez.core.nodes import Node, NodeState
from karez.scheduling.placement.capacity import AMOUNTS, SLOTS, NodeSlots, Pool
from karez.scheduling.placement.inventory import Row, build

FloatArray = NDArray[np.float64]
_USABLE = frozenset({Health.HEALTHY, Health.SUB_HEALTHY})


class _DeviceTotals(NamedTuple):
    """Totals of the usable devices of a node."""

    slotted: tuple[tuple[str, int], ...]
    bulk: tuple[int, ...]
    slots: tuple[tuple[DeviceKind, int], ...]
    cores: tuple[tuple[int, int], ...]


def free_pool(nodes: Sequence[Node], held: Iterable[Grant], *, now: float = 0.0) -> Pool:
    """Build the pool of ready nodes and healthy devices, without what is held."""
    states = [state_of(node, now) for node in nodes]
    unavailable = Counter(state for state in states if state != NodeState.READY)
    ready = sorted(
        (n for n, state in zip(nodes, states, strict=True) if state == NodeState.READY),
        key=lambda node: node.id,
    )
    totals = _totals_of(ready)
    inventory = build([_row(node, total) for node, total in zip(ready, totals, strict=True)])
    slots = tuple(_node_slots(node, total) for node, total in zip(ready, totals, strict=True))
    pool = Pool(
        inventory=inventory,
        masks=_masks_of(inventory.models, nodes),
        nodes=slots,
        number_of={node.id: number for number, node in enumerate(slots)},
        unavailable=dict(unavailable),
        next_maintenance_at=_next_maintenance(ready, now),
    )
    pool.reserve(held)
    return pool


def _masks_of(models: Sequence[str], nodes: Sequence[Node]) -> dict[DeviceKind, int]:
    """The models of each kind that a request gets without naming one.

    Emulated devices are among them only if no node, not even a lost one, has a real one.
    """
    devices = {id(node.devices): node.devices for node in nodes}.values()
    real = {d.kind for of_node in devices for d in of_node if not d.is_emulated}

    def is_meant(model: str, kind: DeviceKind) -> bool:
        is_emulated = model == f"{kind}:{EMULATED}"
        return model.startswith(f"{kind}:") and not (is_emulated and kind in real)

    return {
        kind: sum(1 << n for n, model in enumerate(models) if is_meant(model, kind))
        for kind in SLOTS
    }


def _totals_of(nodes: Sequence[Node]) -> list[_DeviceTotals]:
    """Totals by node; most nodes are alike, and their devices one and the same value."""
    totals: dict[int, _DeviceTotals] = {}
    for node in nodes:
        if id(node.devices) not in totals:
            totals[id(node.devices)] = _device_totals(node.devices)
    return [totals[id(node.devices)] for node in nodes]


def _next_maintenance(nodes: Sequence[Node], now: float) -> FloatArray | None:
    starts = [
        min((w.starts_at for w in n.windows if w.ends_at > now), default=np.inf) for n in nodes
    ]
    return np.array(starts) if min(starts, default=np.inf) < np.inf else None


def state_of(node: Node, now: float) -> str:
    """Return a node's state, or "in maintenance" during a maintenance window."""
    if node.state != NodeState.READY:
        return node.state.value
    under_way = any(window.starts_at <= now < window.ends_at for window in node.windows)
    return "in maintenance" if under_way else NodeState.READY.value


def _device_totals(devices: Sequence[Device]) -> _DeviceTotals:
    well = [device for device in devices if device.health in _USABLE]

    def total(kind: DeviceKind) -> int:
        found = (device for device in well if device.kind == kind)
        return sum(d.memory_bytes if kind in IN_BYTES else d.milli for d in found)

    return _DeviceTotals(
        slotted=tuple((f"{d.kind}:{d.model}", d.milli) for d in well if d.kind in SLOTS),
        bulk=tuple(total(kind) for kind in AMOUNTS),
        slots=tuple((device.kind, device.index) for device in well if device.kind in SLOTS),
        cores=tuple((d.index, d.milli) for d in well if d.kind == DeviceKind.CPU),
    )


def _row(node: Node, totals: _DeviceTotals) -> Row:
    cpu, memory, dpu, storage = totals.bulk
    return Row(
        name=node.id,
        devices=totals.slotted,
        bulk=(cpu, node.memory_bytes + memory, dpu, storage),
        supernode=node.supernode,
    )


def _node_slots(node: Node, totals: _DeviceTotals) -> NodeSlots:
    return NodeSlots(
        id=node.id,
        slots=totals.slots,
        cores=totals.cores,
        names=frozenset(
            {
                str(node.id),
                *(f"{k}={v}" for k, v in node.labels.items()),
                *(f"{k}=" for k in node.labels),
            }
        ),
    )
