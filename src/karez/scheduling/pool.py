"""The live pool as an inventory: nodes and grants of core on one side, arrays on the other."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from karez.core.resources import DeviceKind, Grant, Health, Need, Node, NodeId, NodeState
from karez.core.units import MILLI
from karez.scheduling.finder import Finder
from karez.scheduling.inventory import CPU, MEMORY, Ints, Inventory, Row, Shape, build
from karez.scheduling.mix import mix_of

_USABLE = frozenset({Health.HEALTHY, Health.SUB_HEALTHY})
SLOTS: Final = (DeviceKind.NPU, DeviceKind.GPU)
"""Kinds whose devices are granted one by one; the others are amounts."""
COMPILED_FROM: Final = 500
"""Nodes from which numba is worth its second of import and 60 MB of memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A node of the pool and what its slots and cores are called."""

    id: NodeId
    slots: tuple[tuple[DeviceKind, int], ...]
    cores: tuple[int, ...]


@dataclass(slots=True, kw_only=True)
class Pool:
    """All nodes that take work, in the order of their ids."""

    inventory: Inventory
    places: tuple[Place, ...]
    numbers: Mapping[NodeId, int]
    cores: Ints
    """(N, C) free thousandths of each core, so that a grant can name the cores it pins."""
    masks: Mapping[DeviceKind, int] = field(default_factory=dict)
    """The models of each kind, as a bit set."""
    shut: Mapping[NodeState, int] = field(default_factory=dict)
    """How many nodes take no work, by why."""
    finder: Finder | None = None
    """Made when first asked for, or given."""

    def shape(self, need: Need) -> Shape:
        """A need as the inventory knows it."""
        if need.kind not in SLOTS:
            return Shape(bulk=(need.milli, need.memory_bytes, 0, 0))
        whole = need.milli >= MILLI
        mask = self.masks.get(need.kind, 0)
        return Shape(
            devices=need.milli // MILLI if whole else 1,
            milli=MILLI if whole else need.milli,
            models=mask,
            bulk=(0, need.memory_bytes, 0, 0),
        )

    def room(self, need: Need) -> Ints:
        """(N,) how many workers of this need fit on each node now."""
        arrays, shape = self.inventory.arrays, self.shape(need)
        if shape.devices:
            usable = (shape.models >> arrays.model) & 1 == 1
            if shape.milli == MILLI:
                count = (usable & (arrays.free >= MILLI)).sum(1) // shape.devices
            else:
                count = (arrays.free // shape.milli * usable).sum(1)
        else:
            count = arrays.bulk[:, CPU] // need.milli
        if need.memory_bytes:
            count = np.minimum(count, arrays.bulk[:, MEMORY] // need.memory_bytes)
        return np.asarray(count, np.int64)

    def best(self, need: Need) -> tuple[int, int] | None:
        """Where one worker does the least harm: node number and slot."""
        if self.finder is None:
            compiled = len(self.places) >= COMPILED_FROM
            self.finder = Finder(inventory=self.inventory, mix=mix_of(()))
            self.finder.compiled &= compiled
        return self.finder.find(self.shape(need))

    def take(self, number: int, need: Need, slot: int | None = None) -> Grant:
        """Grant one worker on a node that has room; a fraction goes to the tightest device."""
        shape, place = self.shape(need), self.places[number]
        if shape.devices:
            if slot is None:
                slot = self._fraction(number, shape) if shape.milli < MILLI else 0
            mask = self.inventory.take(number, shape, slot)
            indices = [i for i in range(len(place.slots)) if mask >> i & 1]
            devices = tuple((place.slots[i][1], shape.milli) for i in indices)
        else:
            self.inventory.take(number, shape, 0)
            devices = self._pin(number, need.milli)
        return Grant(node=place.id, kind=need.kind, devices=devices, memory_bytes=need.memory_bytes)

    def give_back(self, grants: Iterable[Grant]) -> None:
        """Undo grants; nodes and devices that have gone are passed over."""
        for grant in grants:
            self._count(grant, 1)

    def hold(self, grants: Iterable[Grant]) -> None:
        """Count grants that are held already; what has gone is passed over."""
        for grant in grants:
            self._count(grant, -1)

    def has(self, grants: Iterable[Grant]) -> bool:
        """Whether all of this is free right now."""
        listed = tuple(grants)
        self.hold(listed)
        touched = {self.numbers[grant.node] for grant in listed if grant.node in self.numbers}
        arrays = self.inventory.arrays
        short = any(
            (arrays.free[n] < 0).any() or (arrays.bulk[n] < 0).any() or (self.cores[n] < 0).any()
            for n in touched
        )
        self.give_back(listed)
        return not short

    def fork(self) -> "Pool":
        """A copy to try things on."""
        return Pool(
            inventory=self.inventory.fork(),
            places=self.places,
            numbers=self.numbers,
            cores=self.cores.copy(),
            masks=self.masks,
            shut=self.shut,
        )

    def _count(self, grant: Grant, sign: int) -> None:
        number = self.numbers.get(grant.node)
        if number is None:
            return
        arrays, place = self.inventory.arrays, self.places[number]
        arrays.bulk[number, MEMORY] += sign * grant.memory_bytes
        for index, milli in grant.devices:
            if grant.kind in SLOTS:
                if (grant.kind, index) in place.slots:
                    arrays.free[number, place.slots.index((grant.kind, index))] += sign * milli
            elif index in place.cores:
                self.cores[number, place.cores.index(index)] += sign * milli
                arrays.bulk[number, CPU] += sign * milli
        self.inventory.occupy(number, -sign)

    def _fraction(self, number: int, shape: Shape) -> int:
        free = self.inventory.arrays.free[number]
        model = self.inventory.arrays.model[number]
        takes = (free >= shape.milli) & ((shape.models >> model) & 1 == 1)
        return int(np.where(takes, free, 1 << 40).argmin())

    def _pin(self, number: int, milli: int) -> tuple[tuple[int, int], ...]:
        """Cores for an amount: whole ones first, then the tightest that holds the rest."""
        free, names = self.cores[number], self.places[number].cores
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
        return tuple(sorted((names[core], amount) for core, amount in pinned))


def free_pool(nodes: Sequence[Node], held: Iterable[Grant]) -> Pool:
    """The pool after what is held. Only ready nodes and healthy devices count."""
    states = Counter(node.state for node in nodes)
    del states[NodeState.READY]
    ready = sorted((n for n in nodes if n.state == NodeState.READY), key=lambda node: node.id)
    places: list[Place] = []
    rows: list[Row] = []
    whole_cores: list[list[int]] = []
    for node in ready:
        well = [device for device in node.devices if device.health in _USABLE]
        slotted = [device for device in well if device.kind in SLOTS]
        cores = [device for device in well if device.kind == DeviceKind.CPU]
        cpu = sum(device.milli for device in cores)
        whole_cores.append([device.milli for device in cores])
        rows.append(
            Row(
                name=node.id,
                devices=tuple((f"{d.kind}:{d.model}", d.milli) for d in slotted),
                bulk=(cpu, node.memory_bytes, 0, 0),
                supernode=node.supernode,
            )
        )
        places.append(
            Place(
                id=node.id,
                slots=tuple((device.kind, device.index) for device in slotted),
                cores=tuple(device.index for device in cores),
            )
        )
    width = max((len(place.cores) for place in places), default=0)
    free_cores: Any = np.zeros((len(places), width), np.int64)
    for number, sizes in enumerate(whole_cores):
        free_cores[number, : len(sizes)] = sizes
    inventory = build(rows)
    masks = {
        kind: sum(1 << n for n, m in enumerate(inventory.models) if m.startswith(f"{kind}:"))
        for kind in SLOTS
    }
    pool = Pool(
        inventory=inventory,
        masks=masks,
        places=tuple(places),
        numbers={place.id: number for number, place in enumerate(places)},
        cores=free_cores,
        shut=dict(states),
    )
    pool.hold(held)
    return pool
