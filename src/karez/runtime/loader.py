"""Loaders that return the batch of any step: always the same batch for the same step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from typing_extensions import override


@runtime_checkable
class StepLoader(Protocol):
    """A source of batches that can go to any step at once."""

    def at(self, step: int, rank: int, world: int) -> Any:
        """Return this rank's part of the global batch of a step (counted from 0)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffledBatches(StepLoader):
    """Batches of a map-style dataset, shuffled again in every epoch from a seed.

    The global batch of a step does not depend on how many ranks share it.
    """

    dataset: Sequence[Any]
    global_batch: int
    seed: int
    collate: Callable[[list[Any]], Any]

    def __post_init__(self) -> None:
        if not self.dataset:
            raise ValueError("the data set has no rows")
        if self.global_batch < 1:
            raise ValueError(f"global_batch must be at least 1, got {self.global_batch}")

    @override
    def at(self, step: int, rank: int, world: int) -> Any:
        indices = self.indices(step)
        return self.collate([self.dataset[int(i)] for i in indices[rank::world]])

    def indices(self, step: int) -> list[int]:
        """Return the rows of a step's global batch, in order."""
        rows: list[int] = []
        first = step * self.global_batch
        while len(rows) < self.global_batch:
            epoch, at = divmod(first + len(rows), len(self.dataset))
            order = np.random.Generator(np.random.PCG64([self.seed, epoch])).permutation(
                len(self.dataset)
            )
            rows += order[at : at + self.global_batch - len(rows)].tolist()
        return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed(StepLoader):
    """Batches of a list or a range, which starts over after the last one."""

    batches: Sequence[Any]

    def __post_init__(self) -> None:
        if not self.batches:
            raise ValueError("there are no batches")

    @override
    def at(self, step: int, rank: int, world: int) -> Any:
        """Return the batch of a step; the list is expected to be this rank's already."""
        del rank, world
        return self.batches[step % len(self.batches)]
