"""Inventory of free capacity as arrays; changed only through `allocate`, `release` and `occupy`.

Shapes: N nodes, D accelerator slots of the widest node, B bulk resources (see BULK).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from karez.core.units import MILLI

Ints = NDArray[np.int64]
BULK: Final = ("cpu", "memory", "dpu", "storage")
"""Resources that are amounts, not numbered devices: thousandths of a core, bytes, thousandths of
a network card, bytes."""
CPU, MEMORY = 0, 1
ANY_MODEL: Final = -1
"""Model bit set of a shape that takes any accelerator."""
HEAD: Final = 3
"""A row of a shape is (devices, thousandths of each, allowed models) and then the bulk amounts."""


class Shape(NamedTuple):
    """Resources of one worker. Equal shapes share one cached score per node."""

    devices: int = 0
    milli: int = MILLI
    """Thousandths of each device; below 1000 only with one device."""
    models: int = ANY_MODEL
    """Bit set of the allowed models."""
    bulk: tuple[int, ...] = (0,) * len(BULK)

    @property
    def device_milli(self) -> int:
        """Thousandths of all accelerators together."""
        return self.devices * self.milli


@lru_cache(maxsize=4096)
def row_of(shape: Shape) -> Ints:
    """Convert a shape to a row that the kernels read; see HEAD."""
    return np.array([shape.devices, shape.milli, shape.models, *shape.bulk], np.int64)


class Arrays(NamedTuple):
    """Columns that the kernels read and write."""

    free: Ints
    """(N, D) free thousandths of each accelerator; 0 where there is none."""
    model: Ints
    """(N, D) model number of each accelerator."""
    bulk: Ints
    """(N, B) free amounts."""
    domain: Ints
    """(N,) supernode number of each node."""
    busy: Ints
    """(supernodes,) workers in each: a supernode with none is still whole."""
    most: Ints
    """(N,) most free thousandths of one accelerator: this alone rules out most nodes."""
    whole: Ints
    """(N,) accelerators that nobody uses."""
    total: Ints
    """(N,) free thousandths of all accelerators of each node."""


class Supply(NamedTuple):
    """What a pool has in all, free or not."""

    milli: tuple[int, ...]
    """Thousandths of the accelerators of each model, by number."""
    bulk: tuple[int, ...]


@dataclass(slots=True, kw_only=True)
class Inventory:
    """Free capacity, total capacity, and the log of nodes that changed."""

    arrays: Arrays
    size: Ints
    """(N, D) thousandths of each accelerator when free."""
    bulk_size: Ints
    """(N, B) amounts when free."""
    names: tuple[str, ...]
    models: tuple[str, ...] = ()
    """Model names by number."""
    members: tuple[Ints, ...] = field(default_factory=tuple)
    """Nodes of each supernode."""
    changes: int = 0
    """Number of entries in the log of changes."""
    _log: Ints = field(default_factory=lambda: np.zeros(1024, np.int64))
    """Changed nodes in order; the first `changes` entries count."""

    @property
    def capacity_milli(self) -> int:
        """Thousandths of all accelerators together."""
        return int(self.size.sum())

    @property
    def supply(self) -> Supply:
        """What the pool has in all."""
        kind = self.arrays.model
        milli = (int(self.size[kind == number].sum()) for number in range(len(self.models)))
        return Supply(milli=tuple(milli), bulk=tuple(self.bulk_size.sum(0).tolist()))

    @property
    def free_milli(self) -> int:
        """Free thousandths of all accelerators together."""
        return int(self.arrays.free.sum())

    def models_mask(self, names: Sequence[str]) -> int:
        """Return the bit set of some models; names that no node has are left out."""
        return sum(1 << self.models.index(name) for name in names if name in self.models)

    def allocate(self, node: int, shape: Shape, slot: int) -> int:
        """Allocate a worker on a node, and return the bit set of its slots for `release`.

        `slot` is the device of a fraction; whole devices are the first free ones allowed.
        """
        free = self.arrays.free[node]
        mask = 0
        if shape.devices:
            chosen = [slot] if shape.milli < MILLI else self._whole(node, shape)
            for index in chosen:
                free[index] -= shape.milli
                mask |= 1 << index
        self.arrays.bulk[node] -= row_of(shape)[HEAD:]
        self.occupy(node, 1)
        return mask

    def release(self, node: int, shape: Shape, mask: int) -> None:
        """Undo an `allocate`."""
        free = self.arrays.free[node]
        index = 0
        while mask >> index:
            if mask >> index & 1:
                free[index] += shape.milli
            index += 1
        self.arrays.bulk[node] += row_of(shape)[HEAD:]
        self.occupy(node, -1)

    def fork(self) -> "Inventory":
        """Return a copy to try changes on; the original stays as it is."""
        return Inventory(
            arrays=Arrays(
                free=self.arrays.free.copy(),
                model=self.arrays.model,
                bulk=self.arrays.bulk.copy(),
                domain=self.arrays.domain,
                busy=self.arrays.busy.copy(),
                most=self.arrays.most.copy(),
                whole=self.arrays.whole.copy(),
                total=self.arrays.total.copy(),
            ),
            size=self.size,
            bulk_size=self.bulk_size,
            names=self.names,
            models=self.models,
            members=self.members,
        )

    def _whole(self, node: int, shape: Shape) -> list[int]:
        free = self.arrays.free[node].tolist()
        if shape.models == ANY_MODEL:
            chosen = [index for index, left in enumerate(free) if left >= MILLI]
            return chosen[: shape.devices]
        model = self.arrays.model[node].tolist()
        fitting = (
            index
            for index, (left, kind) in enumerate(zip(free, model, strict=True))
            if left >= MILLI and shape.models >> kind & 1
        )
        return [index for index, _ in zip(fitting, range(shape.devices), strict=False)]

    def occupy(self, node: int, change: int) -> None:
        """Add `change` workers to a node's supernode, and log the node as changed."""
        free = self.arrays.free[node].tolist()
        self.arrays.most[node] = max(free)
        self.arrays.whole[node] = free.count(MILLI)
        self.arrays.total[node] = sum(free)
        domain = int(self.arrays.domain[node])
        before = int(self.arrays.busy[domain])
        self.arrays.busy[domain] = before + change
        if before == 0 or before + change == 0:  # all nodes of the supernode score differently
            self._note(self.members[domain])
        else:
            if self.changes == len(self._log):
                self._grow(1)
            self._log[self.changes] = node
            self.changes += 1

    def changed_since(self, seen: int) -> Ints:
        """(changes,) nodes that changed after `changes` was `seen`; a node may occur twice."""
        return self._log[seen : self.changes]

    def _note(self, nodes: Ints) -> None:
        if self.changes + len(nodes) > len(self._log):
            self._grow(len(nodes))
        self._log[self.changes : self.changes + len(nodes)] = nodes
        self.changes += len(nodes)

    def _grow(self, more: int) -> None:
        fresh = np.zeros(2 * len(self._log) + more, np.int64)
        fresh[: self.changes] = self._log[: self.changes]
        self._log = fresh


class Row(NamedTuple):
    """Capacity of one node, to build an inventory from."""

    name: str
    devices: tuple[tuple[str, int], ...] = ()
    """(model, thousandths) of each accelerator."""
    bulk: tuple[int, ...] = (0,) * len(BULK)
    supernode: str = ""


def build(rows: Sequence[Row]) -> Inventory:
    """Build an inventory with everything free. A node without a supernode forms its own."""
    width = max((len(row.devices) for row in rows), default=0) or 1
    models = tuple(dict.fromkeys(model for row in rows for model, _ in row.devices))
    supernodes = dict.fromkeys(row.supernode or f"node {row.name}" for row in rows)
    number = {name: index for index, name in enumerate(supernodes)}
    count = len(rows)
    free: Any = np.zeros((count, width), np.int64)
    model: Any = np.zeros((count, width), np.int64)
    bulk: Any = np.zeros((count, len(BULK)), np.int64)
    domain: Any = np.zeros(count, np.int64)
    for index, row in enumerate(rows):
        for slot, (name, milli) in enumerate(row.devices):
            free[index, slot], model[index, slot] = milli, models.index(name)
        bulk[index] = row.bulk
        domain[index] = number[row.supernode or f"node {row.name}"]
    order = np.argsort(domain, kind="stable")
    edges = np.searchsorted(domain[order], np.arange(1, len(number)))
    return Inventory(
        arrays=Arrays(
            free=free,
            model=model,
            bulk=bulk,
            domain=domain,
            busy=np.zeros(max(1, len(number)), np.int64),
            most=free.max(1, initial=0),
            whole=(free == MILLI).sum(1),
            total=free.sum(1),
        ),
        size=free.copy(),
        bulk_size=bulk.copy(),
        names=tuple(row.name for row in rows),
        models=models,
        members=tuple(np.split(order, edges)),
    )
