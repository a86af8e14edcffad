"""A loader that replays any iterable of batches from any step."""

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from typing_extensions import override

from karez.runtime.loader import StepLoader
from karez.runtime.tracked import Stateful


class Replay(StepLoader, Stateful):
    """Wraps any iterable of batches as a StepLoader: keeps two batches, and reads on from there.

    The random generators are set from the seed and the number of the batch while one is fetched,
    and restored after: shuffling and augmentation then give the same whether a batch is fetched
    for the first time or again. A source with a state_dict of its own (such as torchdata's
    StatefulDataLoader) is set to its position; any other is restarted and read up to it. Random
    numbers that the workers of one that is set to its position draw themselves start over there.
    """

    def __init__(self, source: Iterable[Any], *, seed: int = 0) -> None:
        """Start before the first batch; nothing is read yet."""
        self._source: Any = source
        self._seed = seed
        self.window = 2
        """How many batches back training may go: so many positions of the source are kept."""
        self.at_hand = 2
        """How many of the newest batches are kept."""
        self._has_state = hasattr(source, "load_state_dict")
        self._iterator: Iterator[Any] | None = None
        self._next = 0
        self._epoch = 0
        self._recent: dict[int, Any] = {}
        self._marks: dict[int, Any] = {}
        """Epoch and state of the source before each batch was fetched, if it has a state."""
        self._starts: dict[int, int] = {}
        """Epochs by their first batch; the newest two."""

    @override
    def at(self, step: int, rank: int, world: int) -> Any:
        """Return the batch of a step; the source is expected to be this rank's already."""
        del rank, world
        if step in self._recent:
            return self._recent[step]
        if self._iterator is None or step < self._next:
            self._restart(step)
        while True:
            batch = self._fetch()
            if self._next > step:
                return batch

    @override
    def state_dict(self) -> Mapping[str, Any]:
        """Return the position, and the source's state there."""
        return {"marks": dict(self._marks), "starts": dict(self._starts)}

    @override
    def load_state_dict(self, state: Any, /) -> object:
        """Restore a position; batches at hand are kept, since they do not change."""
        self._marks = {**state["marks"], **self._marks}
        self._starts = {**state["starts"], **self._starts}
        return None

    def _restart(self, step: int) -> None:
        marked = [batch for batch in self._marks if batch <= step]
        if marked and self._has_state:
            self._next = max(marked)
            self._epoch, inner = self._marks[self._next]
            self._source.load_state_dict(inner)
            with _seeded(self._seed, -1 - self._epoch):
                self._iterator = iter(self._source)
        else:
            starts = {n: e for n, e in self._starts.items() if n <= step and self._may_jump}
            self._next = max(starts, default=0)
            self._epoch = starts.get(self._next, 0)
            self._open()

    @property
    def _may_jump(self) -> bool:
        """Whether its number determines an epoch: a DataLoader without a generator of its own."""
        own = [getattr(part, "generator", None) for part in (self._source, *self._samplers())]
        return isinstance(self._source, torch.utils.data.DataLoader) and not any(own)

    def _samplers(self) -> Iterator[Any]:
        """The samplers of a DataLoader, those inside its batch sampler too, as Accelerate's."""
        yield getattr(self._source, "sampler", None)
        part = getattr(self._source, "batch_sampler", None)
        while part is not None:
            yield part
            part = getattr(part, "batch_sampler", None) or getattr(part, "sampler", None)

    def _open(self) -> None:
        """Begin an epoch."""
        self._starts = {self._next: self._epoch, **dict(list(self._starts.items())[:1])}
        for sampler in self._samplers():
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(self._epoch)
        with _seeded(self._seed, -1 - self._epoch):
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
        with _seeded(self._seed, self._next):
            try:
                batch = next(self._iterator)
            except StopIteration:
                self._epoch += 1
                self._open()
                batch = next(self._iterator)
        self._recent[self._next] = batch
        recent, oldest = self._next - self.at_hand, self._next - max(2, self.window)
        self._recent = {n: value for n, value in self._recent.items() if n > recent}
        self._marks = {n: mark for n, mark in self._marks.items() if n > oldest}
        self._next += 1
        return batch


@contextmanager
def _seeded(seed: int, number: int) -> Iterator[None]:
    """Seed the random generators from a seed and a number, and restore them at the end."""
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    words = np.random.SeedSequence([seed & 0xFFFFFFFF, number & 0xFFFFFFFF]).generate_state(1)
    random.seed(int(words[0]))
    np.random.seed(int(words[0]))
    torch.default_generator.manual_seed(int(words[0]))  # a device's own draws go on undisturbed
    try:
        yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
        torch.set_rng_state(state[2])
