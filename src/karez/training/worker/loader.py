"""Batches by step number: the same step gives the same batch, whoever asks and how often."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class StepLoader(Protocol):
    """A source of batches that can go to any step at once."""

    def at(self, step: int, rank: int, world: int) -> Any:
        """This rank's part of the global batch of a step (counted from 0)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffledBatches:
    """Batches of a map-style dataset, shuffled anew in every epoch from a seed.

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

    def at(self, step: int, rank: int, world: int) -> Any:
        """See StepLoader."""
        indices = self.indices(step)
        return self.collate([self.dataset[int(i)] for i in indices[rank::world]])

    def indices(self, step: int) -> list[int]:
        """The rows of a step's global batch, in order."""
        found: list[int] = []
        first = step * self.global_batch
        while len(found) < self.global_batch:
            epoch, at = divmod(first + len(found), len(self.dataset))
            order = np.random.Generator(np.random.PCG64([self.seed, epoch])).permutation(
                len(self.dataset)
            )
            found += order[at : at + self.global_batch - len(found)].tolist()
        return found


class Replay:
    """Any iterable of batches as a StepLoader: it keeps two, and skips after a fresh start.

    The iterable must give the same batches in the same order each time it is started.
    """

    def __init__(self, source: Iterable[Any]) -> None:
        """Nothing is read yet."""
        self._source = source
        self._iterator: Iterator[Any] | None = None
        self._next = 0
        self._recent: dict[int, Any] = {}

    def at(self, step: int, rank: int, world: int) -> Any:
        """See StepLoader; the source has split the work already."""
        del rank, world
        if step in self._recent:
            return self._recent[step]
        if self._iterator is None or step < self._next:
            self._iterator, self._next = iter(self._source), 0
        while True:
            try:
                batch = next(self._iterator)
            except StopIteration:
                self._iterator = iter(self._source)  # the next epoch
                batch = next(self._iterator)
            self._recent[self._next] = batch
            self._recent = {k: v for k, v in self._recent.items() if k > self._next - 2}
            self._next += 1
            if self._next > step:
                return batch
