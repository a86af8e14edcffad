"""The live pool as an inventory: nodes and grants of core on one side, arrays on the other."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from karez.core.devices import IN_BYTES, Device, DeviceKind, Health
from karez.core.grants import Grant
from karez.core.node_affinity import ANYWHERE, NodeAffinity
from karez.core.nodes import Node, NodeId, NodeState
from karez.core.resource_requests import ResourceRequest
from karez.core.units import MILLI
from karez.scheduling.placement.inventory import BULK, CPU, Ints, Inventory, Row, Shape, build
from karez.scheduling.placement.node_selector import NodeSelector
from karez.scheduling.placement.request_mix import request_mix

_USABLE = frozenset({Health.HEALTHY, Health.SUB_HEALTHY})
SLOTS: Final = (DeviceKind.NPU, DeviceKind.GPU)
"""Kinds whose devices are granted one by one; the others are amounts."""
AMOUNTS: Final = tuple(DeviceKind(name) for name in BULK)
"""Kinds that are amounts, in the order of the inventory's columns."""
NUMBA_FROM_NODES: Final = 500
"""Nodes from which numba is worth its second of import and 60 MB of memory."""
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSlots:
    """A node of the pool and what its slots and cores are called."""

    id: NodeId
    slots: tuple[tuple[DeviceKind, int], ...]
    cores: tuple[tuple[int, int], ...]
    """(index, thousandths) of each core."""
    names: frozenset[str] = frozenset()
    """What it can be named by: its id, and its labels as `label=value`."""


@dataclass(slots=True, kw_only=True)
class Pool:
    """All nodes that take work, in the order of their ids."""

    inventory: Inventory
    nodes: tuple[NodeSlots, ...]
    number_of: Mapping[NodeId, int]
    masks: Mapping[DeviceKind, int] = field(default_factory=dict)
    """The models of each kind, as a bit set."""
    unavailable: Mapping[str, int] = field(default_factory=dict)
    """How many nodes take no work, by why."""
    next_maintenance_at: Any = None
    """(N,) when each node's next maintenance starts, infinity where none does; None: nowhere."""
    selector: NodeSelector | None = None
    """Made when first asked for, or given."""
    _cores: dict[int, Ints] = field(default_factory=dict)
    """Free thousandths of each core, where some are held. Rows are replaced, never changed."""
    _allowed: dict[NodeAffinity, Bools] = field(default_factory=dict)
    _shapes: dict[ResourceRequest, Shape] = field(default_factory=dict)

    def shape(self, need: ResourceRequest) -> Shape:
        """A need as the inventory knows it."""
        found = self._shapes.get(need)
        if found is None:
            amounts = need.amounts
            bulk = tuple(amounts.get(kind, 0) for kind in AMOUNTS)
            found = Shape(bulk=bulk)
            if need.kind in SLOTS:
                whole = need.milli >= MILLI
                found = Shape(
                    devices=need.milli // MILLI if whole else 1,
                    milli=MILLI if whole else need.milli,
                    models=self._models(need),
                    bulk=bulk,
                )
            self._shapes[need] = found
        return found

    def _models(self, need: ResourceRequest) -> int:
        if not need.models:
            return self.masks.get(need.kind, 0)
        return self.inventory.models_mask([f"{need.kind}:{name}" for name in need.models])

    def matching(self, among: NodeAffinity) -> Bools | None:
        """(N,) which nodes will do; None: all."""
        if among == ANYWHERE:
            return None
        found = self._allowed.get(among)
        if found is None:
            on, off = frozenset(among.on), frozenset(among.off)
            found = np.array(
                [
                    (not on or not on.isdisjoint(p.names)) and off.isdisjoint(p.names)
                    for p in self.nodes
                ],
                np.bool_,
            )
            self._allowed[among] = found
        return found

    def usable(self, among: NodeAffinity, until: float | None) -> Bools | None:
        """(N,) which nodes will do for work that runs until then; None: all.

        `until` None is work that can be stopped, or that has no need of the node to its end.
        """
        mask = self.matching(among)
        if until is None or self.next_maintenance_at is None:
            return mask
        stays: Bools = self.next_maintenance_at >= until
        return stays if mask is None else mask & stays

    def room(
        self, need: ResourceRequest, among: NodeAffinity = ANYWHERE, until: float | None = None
    ) -> Ints:
        """(N,) how many workers of this need fit on each node now."""
        arrays, shape = self.inventory.arrays, self.shape(need)
        count: Any = None
        if shape.devices:
            usable = (shape.models >> arrays.model) & 1 == 1
            if shape.milli == MILLI:
                count = (usable & (arrays.free >= MILLI)).sum(1) // shape.devices
            else:
                count = (arrays.free // shape.milli * usable).sum(1)
        for column, amount in enumerate(shape.bulk):
            if amount:
                here = np.maximum(arrays.bulk[:, column], 0) // amount
                count = here if count is None else np.minimum(count, here)
        mask = self.usable(among, until)
        return np.asarray(count if mask is None else count * mask, np.int64)

    def best_node(
        self, need: ResourceRequest, among: NodeAffinity = ANYWHERE, until: float | None = None
    ) -> tuple[int, int] | None:
        """Where one worker does the least harm: node number and slot."""
        if self.selector is None:
            compiled = len(self.nodes) >= NUMBA_FROM_NODES
            self.selector = NodeSelector(inventory=self.inventory, mix=request_mix(()))
            self.selector.compiled &= compiled
        mask = self.usable(among, until)
        if mask is None:
            return self.selector.select(self.shape(need))
        return self.selector.select_from(self.shape(need), np.flatnonzero(mask))

    def allocate(
        self, number: int, need: ResourceRequest, slot: int | None = None, role: str = ""
    ) -> Grant:
        """Grant one worker on a node that has room; a fraction goes to the tightest device."""
        shape, place = self.shape(need), self.nodes[number]
        devices: tuple[tuple[int, int], ...] = ()
        if shape.devices:
            if slot is None:
                slot = self._fraction(number, shape) if shape.milli < MILLI else 0
            mask = self.inventory.allocate(number, shape, slot)
            indices = [i for i in range(len(place.slots)) if mask >> i & 1]
            devices = tuple((place.slots[i][1], shape.milli) for i in indices)
        else:
            self.inventory.allocate(number, shape, 0)
        cores = self._pin(number, shape.bulk[CPU]) if shape.bulk[CPU] else ()
        return Grant(
            node=place.id,
            kind=need.kind,
            devices=cores if need.kind == DeviceKind.CPU else devices,
            cores=() if need.kind == DeviceKind.CPU else cores,
            memory_bytes=need.memory_bytes,
            dpu_milli=need.amounts.get(DeviceKind.DPU, 0),
            storage_bytes=need.storage_bytes,
            role=role,
        )

    def release(self, grants: Iterable[Grant]) -> None:
        """Undo grants; nodes and devices that have gone are passed over."""
        for grant in grants:
            self._count(grant, 1)

    def reserve(self, grants: Iterable[Grant]) -> None:
        """Count grants that are held already; what has gone is passed over."""
        for grant in grants:
            self._count(grant, -1)

    def is_free(self, grants: Iterable[Grant]) -> bool:
        """Whether all of this is free right now."""
        listed = tuple(grants)
        self.reserve(listed)
        touched = {self.number_of[grant.node] for grant in listed if grant.node in self.number_of}
        arrays = self.inventory.arrays
        short = any(
            (arrays.free[n] < 0).any() or (arrays.bulk[n] < 0).any() or (self.cores(n) < 0).any()
            for n in touched
        )
        self.release(listed)
        return not short

    def fork(self) -> "Pool":
        """A copy to try things on."""
        return Pool(
            inventory=self.inventory.fork(),
            nodes=self.nodes,
            number_of=self.number_of,
            masks=self.masks,
            unavailable=self.unavailable,
            next_maintenance_at=self.next_maintenance_at,
            _cores=dict(self._cores),
            _allowed=self._allowed,
            _shapes=self._shapes,
        )

    def cores(self, number: int) -> Ints:
        """Free thousandths of each core of a node, in the order of its place."""
        held = self._cores.get(number)
        if held is not None:
            return held
        return np.array([milli for _, milli in self.nodes[number].cores], np.int64)

    def _count(self, grant: Grant, sign: int) -> None:
        number = self.number_of.get(grant.node)
        if number is None:
            return
        arrays, place = self.inventory.arrays, self.nodes[number]
        is_cpu = grant.kind == DeviceKind.CPU
        for index, milli in () if is_cpu else grant.devices:
            if (grant.kind, index) in place.slots:
                arrays.free[number, place.slots.index((grant.kind, index))] += sign * milli
        pinned = dict(grant.devices if is_cpu else grant.cores)
        if pinned:
            free = self.cores(number).copy()
            for at, (index, _) in enumerate(place.cores):
                free[at] += sign * pinned.get(index, 0)
                arrays.bulk[number, CPU] += sign * pinned.get(index, 0)
            self._cores[number] = free
        for column, kind in enumerate(AMOUNTS):
            if column != CPU:
                arrays.bulk[number, column] += sign * grant.amounts.get(kind, 0)
        self.inventory.occupy(number, -sign)

    def _fraction(self, number: int, shape: Shape) -> int:
        free = self.inventory.arrays.free[number]
        model = self.inventory.arrays.model[number]
        takes = (free >= shape.milli) & ((shape.models >> model) & 1 == 1)
        return int(np.where(takes, free, 1 << 40).argmin())

    def _pin(self, number: int, milli: int) -> tuple[tuple[int, int], ...]:
        """Cores for an amount: whole ones first, then the tightest that holds the rest."""
        free, names = self.cores(number).copy(), self.nodes[number].cores
        pinned: list[tuple[int, int]] = []
        for core in np.flatnonzero(free == MILLI)[: milli // MILLI].tolist():
            pinned.append((core, MILLI))
        missing = milli - MILLI * len(pinned)
        while missing > 0:
            open_cores = [(int(free[c]), c) for c in range(len(names)) if free[c] > 0]
            open_cores = [(left, c) for left, c in open_cores if c not in dict(pinned)]
            fitting = [(left, c) for left, c in open_cores if left >= missing]
            left, core = min(fitting) if fitting else max(open_cores)
            pinned.append((core, min(left, missing)))
            missing -= min(left, missing)
        for core, amount in pinned:
            free[core] -= amount
        self._cores[number] = free
        return tuple(sorted((names[core][0], amount) for core, amount in pinned))


def free_pool(nodes: Sequence[Node], held: Iterable[Grant], *, now: float = 0.0) -> Pool:
    """The pool after what is held. Only ready nodes and healthy devices count."""
    states = [state_of(node, now) for node in nodes]
    shut = Counter(state for state in states if state != NodeState.READY)
    ready = sorted(
        (n for n, state in zip(nodes, states, strict=True) if state == NodeState.READY),
        key=lambda node: node.id,
    )
    known: dict[int, _Parts] = {}  # most nodes are alike, and their devices one and the same value
    for node in ready:
        if id(node.devices) not in known:
            known[id(node.devices)] = _parts(node.devices)
    parts = [known[id(node.devices)] for node in ready]
    inventory = build([_row(node, part) for node, part in zip(ready, parts, strict=True)])
    places = tuple(_node_slots(node, part) for node, part in zip(ready, parts, strict=True))
    masks = {
        kind: sum(1 << n for n, m in enumerate(inventory.models) if m.startswith(f"{kind}:"))
        for kind in SLOTS
    }
    closes = [
        min((w.starts_at for w in n.windows if w.ends_at > now), default=np.inf) for n in ready
    ]
    pool = Pool(
        inventory=inventory,
        masks=masks,
        nodes=places,
        number_of={place.id: number for number, place in enumerate(places)},
        unavailable=dict(shut),
        next_maintenance_at=np.array(closes) if min(closes, default=np.inf) < np.inf else None,
    )
    pool.reserve(held)
    return pool


def state_of(node: Node, now: float) -> str:
    """A node's state, its maintenance counted in."""
    if node.state != NodeState.READY:
        return node.state.value
    under_way = any(window.starts_at <= now < window.ends_at for window in node.windows)
    return "in maintenance" if under_way else NodeState.READY.value


class _Parts(NamedTuple):
    """What a set of devices comes to, those that take no work left out."""

    slotted: tuple[tuple[str, int], ...]
    bulk: tuple[int, ...]
    slots: tuple[tuple[DeviceKind, int], ...]
    cores: tuple[tuple[int, int], ...]


def _parts(devices: Sequence[Device]) -> _Parts:
    well = [device for device in devices if device.health in _USABLE]

    def total(kind: DeviceKind) -> int:
        found = (device for device in well if device.kind == kind)
        return sum(d.memory_bytes if kind in IN_BYTES else d.milli for d in found)

    return _Parts(
        slotted=tuple((f"{d.kind}:{d.model}", d.milli) for d in well if d.kind in SLOTS),
        bulk=tuple(total(kind) for kind in AMOUNTS),
        slots=tuple((device.kind, device.index) for device in well if device.kind in SLOTS),
        cores=tuple((d.index, d.milli) for d in well if d.kind == DeviceKind.CPU),
    )


def _row(node: Node, parts: _Parts) -> Row:
    cpu, memory, dpu, storage = parts.bulk
    return Row(
        name=node.id,
        devices=parts.slotted,
        bulk=(cpu, node.memory_bytes + memory, dpu, storage),
        supernode=node.supernode,
    )


def _node_slots(node: Node, parts: _Parts) -> NodeSlots:
    return NodeSlots(
        id=node.id,
        slots=parts.slots,
        cores=parts.cores,
        names=frozenset({str(node.id), *(f"{k}={v}" for k, v in node.labels.items())}),
    )
