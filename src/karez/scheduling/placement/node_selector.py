"""Selects the best node for one worker, with a cache of each shape's scores."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from karez.scheduling.placement.inventory import Ints, Inventory, Shape, row_of
from karez.scheduling.placement.request_mix import RequestMix
from karez.scheduling.placement.scores import BLOCK, NEVER, Policy, score

MAX_CACHED_SHAPES: Final = 512
"""Shapes whose scores are kept; 12,500 nodes take 200 KB each."""
Known = tuple[Ints, Ints, Ints]
Refresh = Callable[["NodeSelector", "_Scores", Ints], int]


@dataclass(slots=True, kw_only=True)
class _Scores:
    """Cached scores of one shape."""

    row: Ints
    known: Known
    seen: int
    """Entries of the inventory's log of changes that the scores include."""


@dataclass(slots=True, kw_only=True)
class NodeSelector:
    """Selects nodes of one inventory: select a node, allocate there, select the next."""

    inventory: Inventory
    mix: RequestMix
    policy: Policy = Policy.KAREZ
    compiled: bool = True
    """Whether numba scores the nodes where it is installed. The scores are the same."""
    stamps: Ints = field(init=False)
    """(N,) the last selection for which each node was scored."""
    stamp: int = 0
    _shapes: dict[Shape, _Scores] = field(default_factory=dict)
    _refresh: Refresh | None = None

    def __post_init__(self) -> None:
        self.stamps = np.zeros(len(self.inventory.names), np.int64)

    def select(self, shape: Shape) -> tuple[int, int] | None:
        """Return the best node and the slot for a fraction there, or None if no node has room."""
        if self._refresh is None:
            self._refresh = _compiled_refresh() if self.compiled else _refresh
        inventory = self.inventory
        scores = self._shapes.get(shape)
        if scores is None or inventory.changes - scores.seen > len(inventory.names):
            scores = self._new_scores(shape)
            rows: Ints = np.arange(len(inventory.names))
        else:
            rows = inventory.changed_since(scores.seen)
        scores.seen = inventory.changes
        node = self._refresh(self, scores, rows)
        return None if node < 0 else (node, int(scores.known[1][node]))

    def select_from(self, shape: Shape, rows: Ints) -> tuple[int, int] | None:
        """Return the best of some nodes and the slot there; scores are not cached."""
        if not len(rows):
            return None
        arrays = self.inventory.arrays
        points, slots = score(arrays, rows, row_of(shape), self.mix, self.policy)
        best = int(points.argmax())
        return None if points[best] == NEVER else (int(rows[best]), int(slots[best]))

    def _new_scores(self, shape: Shape) -> _Scores:
        if len(self._shapes) >= MAX_CACHED_SHAPES:
            del self._shapes[next(iter(self._shapes))]
        count = len(self.inventory.names)
        blocks = -(-count // BLOCK) or 1
        empty = np.full(count, NEVER, np.int64)
        known = (empty, np.zeros(count, np.int64), np.full(blocks, NEVER, np.int64))
        self._shapes[shape] = _Scores(row=row_of(shape), known=known, seen=0)
        return self._shapes[shape]


def _refresh(selector: NodeSelector, scores: _Scores, rows: Ints) -> int:
    points, slots, _ = scores.known
    arrays, unique = selector.inventory.arrays, np.unique(rows)
    for start in range(0, len(unique), 1024):  # (K, D, T) stays in the cache
        part = unique[start : start + 1024]
        points[part], slots[part] = score(arrays, part, scores.row, selector.mix, selector.policy)
    if not len(points):
        return -1
    best = int(points.argmax())
    return -1 if points[best] == NEVER else best


def _compiled_refresh() -> Refresh:
    """Score with numba; with NumPy, to the same integers, where numba is not installed."""
    try:
        from karez.scheduling.placement import scores_numba  # noqa: PLC0415 - takes a second
    except ImportError:
        return _refresh

    def refresh(selector: NodeSelector, scores: _Scores, rows: Ints) -> int:
        selector.stamp += 1
        return int(
            scores_numba.refresh(
                selector.inventory.arrays,
                scores.row,
                selector.mix,
                int(selector.policy),
                scores.known,
                rows,
                selector.stamps,
                selector.stamp,
            )
        )

    return refresh
