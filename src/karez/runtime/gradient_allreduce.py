"""Averages gradients over the ranks, bucket by bucket, while the backward goes on."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from karez.runtime.gradient_buckets import Bucket, make_buckets
from karez.runtime.process_group import ProcessGroup
from karez.runtime.step_numbers import NUMBERS, StepNumbers, read_numbers, write_numbers


@dataclass(slots=True, kw_only=True)
class GradientAllReduce:
    """The gradient averaging of one rank.

    A bucket travels once all of its gradients are there, and those before it have left: all ranks
    send the buckets in one order. Autograd calls back at the end of the backward, where the rest is
    sent and all of them are waited for.
    """

    group: ProcessGroup
    enter: Callable[[], None]
    """Waits until the step may be entered. Raises RuntimeError if the generation has ended."""
    run_collective: Callable[[Callable[[], None]], bool]
    """Runs a collective with all ranks; returns False if a peer was lost."""
    on_bad_gradients: Callable[[], None]
    """Called after a mean that is not finite."""
    numbers: Callable[[], StepNumbers]
    """Returns what this rank sends with its gradients."""
    on_numbers: Callable[[list[StepNumbers]], None]
    """Takes what all ranks sent. Raises DigestMismatch if replicas differ."""
    is_paused: bool = False
    """Whether backwards only accumulate, on this rank alone."""
    _wanted: Callable[[], bool] = lambda: False
    _trained: list[torch.nn.Parameter] = field(default_factory=list)
    _buckets: list[Bucket] = field(default_factory=list)
    _bucket_of: dict[torch.Tensor, int] = field(default_factory=dict)
    _missing: list[int] = field(default_factory=list)
    """Gradients that each bucket still waits for."""
    _works: list[dist.Work] = field(default_factory=list)
    """Collectives of the buckets that have left, in order."""
    _late: set[int] = field(default_factory=set)
    """Buckets that left before all of their gradients were complete."""
    _is_open: bool = False
    """Whether a backward is under way whose gradients travel."""
    _error: RuntimeError | None = None
    """Why no more buckets leave in this backward."""

    def begin(self) -> None:
        """Begin a generation. Collectives of the one before may still write to its buckets."""
        self._buckets, self._works, self._is_open = [], [], False

    def watch(self, model: torch.nn.Module, wanted: Callable[[], bool]) -> None:
        """Average this model's gradients from now on, whenever `wanted` returns True."""
        self._wanted = wanted
        self._trained = [p for p in model.parameters() if p.requires_grad]
        for parameter in self._trained:
            parameter.register_post_accumulate_grad_hook(self._on_grad)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let backwards accumulate gradients without averaging them."""
        before, self.is_paused = self.is_paused, True
        try:
            yield
        finally:
            self.is_paused = before

    def _on_grad(self, parameter: torch.Tensor) -> None:
        if self.is_paused or not (self._is_open or self._open()):
            return
        number = self._bucket_of[parameter]
        self._missing[number] -= 1
        if self._missing[number] < 0 and number < len(self._works):
            self._late.add(number)  # a second gradient, as of reentrant checkpointing
        self._send(lambda number: self._missing[number] <= 0)

    def _open(self) -> bool:
        """Begin to average a backward; False if nothing is to be averaged."""
        if self.group.world == 1 or not self._wanted():
            return False
        if not self._buckets:
            self._make_buckets()
        self._missing = [len(bucket.parameters) for bucket in self._buckets]
        self._works, self._late, self._error = [], set(), None
        self._is_open = True
        torch.autograd.Variable._execution_engine.queue_callback(self._close)
        return True

    def _make_buckets(self) -> None:
        device = self.group.travels_from(self._trained[0].device)
        self._buckets = make_buckets(self._trained, device, numbers=NUMBERS * self.group.world)
        self._bucket_of = {
            parameter: number
            for number, bucket in enumerate(self._buckets)
            for parameter in bucket.parameters
        }

    def _send(self, is_ready: Callable[[int], bool]) -> None:
        """Send the buckets that are ready, up to the first that is not."""
        try:
            while self._error is None and len(self._works) < len(self._buckets):
                number = len(self._works)
                if not is_ready(number):
                    return
                if number == 0:
                    self.enter()
                self._works.append(self._send_one(self._buckets[number]))
        except RuntimeError as error:  # reported at the end of the backward, which must not fail
            self._error = error

    def _send_one(self, bucket: Bucket) -> dist.Work:
        bucket.fill(1 / self.group.world)
        if bucket.numbers.numel():
            write_numbers(bucket.numbers, self.group.rank, self.numbers())
        return self.group.start_all_reduce(bucket.flat)

    def _close(self) -> None:
        """Send what is left, and wait for the means."""
        self._is_open = False
        is_finite = True

        def receive() -> None:
            nonlocal is_finite
            self._send(lambda _: True)
            if self._error is not None:
                raise self._error
            is_finite = self._receive()

        if self.run_collective(receive) and not is_finite:
            self.on_bad_gradients()

    def _receive(self) -> bool:
        """Wait for all buckets and give their gradients back. Returns whether all are finite."""
        totals: list[torch.Tensor] = []
        for number, bucket in enumerate(self._buckets):
            self.group.wait(self._works[number])
            if number in self._late:  # its parameters still have the gradients of this rank
                self.group.wait(self._send_one(bucket))
            if bucket.numbers.numel():
                self.on_numbers(read_numbers(bucket.numbers))
            totals.append(bucket.total())
            bucket.give_back()
        return all(math.isfinite(total) for total in torch.stack(totals).tolist())
