"""Free capacity of the live pool: maps nodes and grants of core to the arrays of an inventory."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from karez.core.devices import EMULATED, DeviceKind
from karez.core.grants import Grant
from karez.core.node_affinity import ANYWHERE, NodeAffinity
from karez.core.nodes import NodeId
from karez.core.resource_requests import ResourceRequest
from karez.core.units import MILLI
from karez.scheduling.placement.core_pinning import pin_cores
from karez.scheduling.placement.inventory import BULK, CPU, Ints, Inventory, Shape
from karez.scheduling.placement.node_selector import NodeSelector
from karez.scheduling.placement.request_mix import WHOLE, RequestMix, request_mix
from karez.scheduling.placement.scores import Policy

SLOTS: Final = (DeviceKind.NPU, DeviceKind.GPU)
"""Kinds whose devices are granted one by one; the others are amounts."""
AMOUNTS: Final = tuple(DeviceKind(name) for name in BULK)
"""Kinds that are amounts, in the order of the inventory's columns."""
NUMBA_FROM_NODES: Final = 500
"""Nodes from which numba is worth its second of import and 60 MB of memory."""
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSlots:
    """A node of the pool, with the devices of its slots and its cores."""

    id: NodeId
    slots: tuple[tuple[DeviceKind, int], ...]
    """(kind, index) of each device, in the order of the inventory's slots."""
    cores: tuple[tuple[int, int], ...]
    """(index, thousandths) of each core."""
    names: frozenset[str] = frozenset()
    """Names that a node affinity may use: the id, the labels as `label=value` and `label=`."""


@dataclass(slots=True, kw_only=True)
class Pool:
    """All nodes that take work, in the order of their ids, and what is free on them."""

    inventory: Inventory
    nodes: tuple[NodeSlots, ...]
    number_of: Mapping[NodeId, int]
    masks: Mapping[DeviceKind, int] = field(default_factory=dict)
    """Models of each kind, as a bit set."""
    unavailable: Mapping[str, int] = field(default_factory=dict)
    """Number of nodes that take no work, by reason."""
    next_maintenance_at: Any = None
    """(N,) start of each node's next maintenance, infinity without one; None: no node has one."""
    mix: RequestMix | None = None
    """Requests that are expected; forks expect the same."""
    scarcity: Ints | None = None
    """(supernodes,) average scarcity of the accelerators in each; None: none is scarce."""
    selector: NodeSelector | None = None
    """Created on first use unless given."""
    _cores: dict[int, Ints] = field(default_factory=dict)
    """Node number -> free thousandths of each core, where some are held. Rows are replaced, never
    changed, since forks share them."""
    _allowed: dict[NodeAffinity, Bools] = field(default_factory=dict)
    _shapes: dict[ResourceRequest, Shape] = field(default_factory=dict)

    def shape(self, need: ResourceRequest) -> Shape:
        """Convert a need to the inventory's shape."""
        shape = self._shapes.get(need)
        if shape is None:
            amounts = need.amounts
            bulk = tuple(amounts.get(kind, 0) for kind in AMOUNTS)
            shape = Shape(bulk=bulk)
            if need.kind in SLOTS:
                whole = need.milli >= MILLI
                shape = Shape(
                    devices=need.milli // MILLI if whole else 1,
                    milli=MILLI if whole else need.milli,
                    models=self._models(need),
                    bulk=bulk,
                )
            self._shapes[need] = shape
        return shape

    def _models(self, need: ResourceRequest) -> int:
        if not need.models:
            return self.masks.get(need.kind, 0)
        return self.inventory.models_mask([f"{need.kind}:{name}" for name in need.models])

    def matching(self, among: NodeAffinity) -> Bools | None:
        """(N,) mask of nodes that a node affinity allows; None: all."""
        if among == ANYWHERE:
            return None
        mask = self._allowed.get(among)
        if mask is None:
            on, off = frozenset(among.on), frozenset(among.off)
            having = frozenset(f"{label}=" for label in among.having)
            mask = np.array(
                [
                    (not on or not on.isdisjoint(p.names))
                    and off.isdisjoint(p.names)
                    and having <= p.names
                    for p in self.nodes
                ],
                np.bool_,
            )
            self._allowed[among] = mask
        return mask

    def usable(self, among: NodeAffinity, until: float | None) -> Bools | None:
        """(N,) mask of nodes for work that runs until then; None: all.

        `until` None is work that can leave the node before it ends.
        """
        mask = self.matching(among)
        if until is None or self.next_maintenance_at is None:
            return mask
        stays: Bools = self.next_maintenance_at >= until
        return stays if mask is None else mask & stays

    def room(
        self, need: ResourceRequest, among: NodeAffinity = ANYWHERE, until: float | None = None
    ) -> Ints:
        """(N,) number of workers of this need that fit on each node now."""
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
        """Return the best node by score for one worker, and its slot; None if no node has room."""
        selector = self.selector or self._select_by(self.mix or request_mix(()), Policy.KAREZ)
        mask = self.usable(among, until)
        if mask is None:
            return selector.select(self.shape(need))
        return selector.select_from(self.shape(need), np.flatnonzero(mask))

    def expect(
        self, requests: Mapping[ResourceRequest, int], scores: Policy = Policy.KAREZ
    ) -> None:
        """Place what comes so that these requests, and how many come of each, find room.

        A few whole devices are always expected, so that a young pool does not adapt to its first
        jobs alone.
        """
        shapes = Counter(WHOLE)
        for need, number in requests.items():
            shapes[self.shape(need)] += number
        self.mix = request_mix(shapes, self.inventory.supply)
        self.scarcity = _mean_scarcity(self.inventory, self.mix)
        self._select_by(self.mix, scores)

    def _select_by(self, mix: RequestMix, scores: Policy) -> NodeSelector:
        compiled = len(self.nodes) >= NUMBA_FROM_NODES
        self.selector = NodeSelector(
            inventory=self.inventory, mix=mix, policy=scores, compiled=compiled
        )
        return self.selector

    def allocate(
        self, number: int, need: ResourceRequest, slot: int | None = None, role: str = ""
    ) -> Grant:
        """Grant one worker on a node that has room; a fraction goes to the tightest device."""
        shape, node = self.shape(need), self.nodes[number]
        devices: tuple[tuple[int, int], ...] = ()
        if shape.devices:
            if slot is None:
                slot = self._fraction(number, shape) if shape.milli < MILLI else 0
            mask = self.inventory.allocate(number, shape, slot)
            indices = [i for i in range(len(node.slots)) if mask >> i & 1]
            devices = tuple((node.slots[i][1], shape.milli) for i in indices)
        else:
            self.inventory.allocate(number, shape, 0)
        cores = self._pin(number, shape.bulk[CPU]) if shape.bulk[CPU] else ()
        return Grant(
            node=node.id,
            kind=need.kind,
            devices=cores if need.kind == DeviceKind.CPU else devices,
            cores=() if need.kind == DeviceKind.CPU else cores,
            memory_bytes=need.memory_bytes,
            dpu_milli=need.amounts.get(DeviceKind.DPU, 0),
            storage_bytes=need.storage_bytes,
            role=role,
            is_emulated=bool(devices) and self._is_emulated(number, devices[0][0], need.kind),
        )

    def _is_emulated(self, number: int, index: int, kind: DeviceKind) -> bool:
        slot = self.nodes[number].slots.index((kind, index))
        model = int(self.inventory.arrays.model[number, slot])
        return self.inventory.models[model] == f"{kind}:{EMULATED}"

    def release(self, grants: Iterable[Grant]) -> None:
        """Release grants; nodes and devices that have left the pool are ignored."""
        for grant in grants:
            self._count(grant, 1)

    def reserve(self, grants: Iterable[Grant]) -> None:
        """Count grants that are held already; nodes and devices that have left are ignored."""
        for grant in grants:
            self._count(grant, -1)

    def is_free(self, grants: Iterable[Grant]) -> bool:
        """Whether all of these grants are free now."""
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
        """Return a copy to try changes on."""
        return Pool(
            inventory=self.inventory.fork(),
            nodes=self.nodes,
            number_of=self.number_of,
            masks=self.masks,
            unavailable=self.unavailable,
            next_maintenance_at=self.next_maintenance_at,
            mix=self.mix,
            scarcity=self.scarcity,
            _cores=dict(self._cores),
            _allowed=self._allowed,
            _shapes=self._shapes,
        )

    def cores(self, number: int) -> Ints:
        """Free thousandths of each core of a node, in the order of `NodeSlots.cores`."""
        free = self._cores.get(number)
        if free is not None:
            return free
        return np.array([milli for _, milli in self.nodes[number].cores], np.int64)

    def _count(self, grant: Grant, sign: int) -> None:
        number = self.number_of.get(grant.node)
        if number is None:
            return
        arrays, node = self.inventory.arrays, self.nodes[number]
        is_cpu = grant.kind == DeviceKind.CPU
        for index, milli in () if is_cpu else grant.devices:
            if (grant.kind, index) in node.slots:
                arrays.free[number, node.slots.index((grant.kind, index))] += sign * milli
        pinned = dict(grant.devices if is_cpu else grant.cores)
        if pinned:
            free = self.cores(number).copy()
            for at, (index, _) in enumerate(node.cores):
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
        free, cores = self.cores(number).copy(), self.nodes[number].cores
        pinned = pin_cores(free, milli)
        for core, amount in pinned:
            free[core] -= amount
        self._cores[number] = free
        return tuple(sorted((cores[core][0], amount) for core, amount in pinned))


def _mean_scarcity(inventory: Inventory, mix: RequestMix) -> Ints:
    """(supernodes,) average scarcity of the accelerators in each supernode."""
    arrays, size = inventory.arrays, inventory.size
    totals = np.zeros((2, len(arrays.busy)), np.int64)
    np.add.at(totals[0], arrays.domain, (mix.scarcity[arrays.model] * size).sum(1))
    np.add.at(totals[1], arrays.domain, size.sum(1))
    return np.asarray(totals[0] // np.maximum(totals[1], 1), np.int64)
