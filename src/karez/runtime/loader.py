"""Batches by step number: the same step gives the same batch, whoever asks and how often."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """Batches that are all at hand, in a list or a range: again from the first after the last."""

    batches: Sequence[Any]

    def __post_init__(self) -> None:
        if not self.batches:
            raise ValueError("there are no batches")

    def at(self, step: int, rank: int, world: int) -> Any:
        """See StepLoader; who made the list has split the work already."""
        del rank, world
        return self.batches[step % len(self.batches)]


class Replay:
    """Any iterable of batches as a StepLoader: it keeps two, and reads on from where it was.

    The random generators are set from the seed and the number of the batch while one is fetched,
    and put back after: shuffling and augmentation then give the same whether a batch is fetched
    for the first time or again. A source with a state_dict of its own (such as torchdata's
    StatefulDataLoader) is set to its place; any other is started anew and read up to it. What the
    workers of one that is set to its place draw themselves begins anew there.
    """

    def __init__(self, source: Iterable[Any], *, seed: int = 0) -> None:
        """Nothing is read yet."""
        self._source: Any = source
        self._seed = seed
        self._has_state = hasattr(source, "load_state_dict")
        self._iterator: Iterator[Any] | None = None
        self._next = 0
        self._epoch = 0
        self._recent: dict[int, Any] = {}
        self._marks: dict[int, Any] = {}
        """Batch -> the source's epoch and state before it was fetched, if it has a state."""
        self._starts: dict[int, int] = {}
        """First batch -> epoch, of the newest two."""

    def at(self, step: int, rank: int, world: int) -> Any:
        """See StepLoader; the source has split the work already."""
        del rank, world
        if step in self._recent:
            return self._recent[step]
        if self._iterator is None or step < self._next:
            self._begin_anew(step)
        while True:
            batch = self._fetch()
            if self._next > step:
                return batch

    def state_dict(self) -> Mapping[str, Any]:
        """Where it is; with the source's own word for it."""
        return {"marks": dict(self._marks), "starts": dict(self._starts)}

    def load_state_dict(self, state: Any, /) -> object:
        """Take a place back; batches at hand are kept, for they do not change."""
        self._marks = {**state["marks"], **self._marks}
        self._starts = {**state["starts"], **self._starts}
        return None

    def _begin_anew(self, step: int) -> None:
        known = [batch for batch in self._marks if batch <= step]
        if known and self._has_state:
            self._next = max(known)
            self._epoch, inner = self._marks[self._next]
            self._source.load_state_dict(inner)
            with _drawn(self._seed, -1 - self._epoch):
                self._iterator = iter(self._source)
        else:
            starts = {n: e for n, e in self._starts.items() if n <= step and self._may_jump}
            self._next = max(starts, default=0)
            self._epoch = starts.get(self._next, 0)
            self._open()

    @property
    def _may_jump(self) -> bool:
        """Whether an epoch follows from its number: a DataLoader without a generator of its own."""
        source = self._source
        own = [getattr(part, "generator", None) for part in (source, getattr(source, "sampler", 0))]
        return isinstance(source, torch.utils.data.DataLoader) and not any(own)

    def _open(self) -> None:
        """Begin an epoch."""
        self._starts = {self._next: self._epoch, **dict(list(self._starts.items())[:1])}
        sampler: Any = getattr(self._source, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(self._epoch)
        with _drawn(self._seed, -1 - self._epoch):
            self._iterator = iter(self._source)

    def _mark(self) -> None:
        try:
            inner = deepcopy(self._source.state_dict())
        except AttributeError:  # Accelerate's loaders have the method, and often no state
            self._has_state = False
        else:
            self._marks[self._next] = (self._epoch, inner)

    def _fetch(self) -> Any:
        assert self._iterator is not None
        if self._has_state:
            self._mark()
        with _drawn(self._seed, self._next):
            try:
                batch = next(self._iterator)
            except StopIteration:
                self._epoch += 1
                self._open()
                batch = next(self._iterator)
        self._recent[self._next] = batch
        oldest = self._next - 2
        self._recent = {n: kept for n, kept in self._recent.items() if n > oldest}
        self._marks = {n: kept for n, kept in self._marks.items() if n > oldest}
        self._next += 1
        return batch


@contextmanager
def _drawn(seed: int, number: int) -> Iterator[None]:
    """Random generators that depend on a number alone, for a while."""
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    spot = np.random.SeedSequence([seed & 0xFFFFFFFF, number & 0xFFFFFFFF]).generate_state(1)
    random.seed(int(spot[0]))
    np.random.seed(int(spot[0]))
    torch.default_generator.manual_seed(int(spot[0]))  # a device's own draws go on undisturbed
    try:
        yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
        torch.set_rng_state(state[2])
