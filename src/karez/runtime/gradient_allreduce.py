"""Averages gradients over the ranks at the end of each backward."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from karez.runtime.process_group import ProcessGroup


@dataclass(slots=True, kw_only=True)
class GradientAllReduce:
    """The gradient averaging of one rank.

    Autograd calls it back once all gradients of a backward are there.
    """

    group: ProcessGroup
    run_collective: Callable[[Callable[[], None]], bool]
    """Runs a collective with all ranks; returns False if a peer was lost."""
    on_bad_gradients: Callable[[], None]
    """Called after a mean that is not finite."""
    digest: Callable[[], int]
    """Returns the checksum of what must be alike on all ranks; 0: nothing is compared."""
    _is_due: bool = False

    def begin(self) -> None:
        """Begin a generation."""
        self._is_due = False

    def watch(self, model: torch.nn.Module, wanted: Callable[[], bool]) -> None:
        """Average this model's gradients from now on, whenever `wanted` returns True."""
        trained = [p for p in model.parameters() if p.requires_grad]

        def reduce() -> None:
            self._is_due = False
            if wanted():
                self._average(trained)

        def on_grad(_: torch.Tensor) -> None:
            if not self._is_due and self.group.world > 1:
                self._is_due = True
                torch.autograd.Variable._execution_engine.queue_callback(reduce)

        for parameter in trained:
            parameter.register_post_accumulate_grad_hook(on_grad)

    def _average(self, trained: list[torch.nn.Parameter]) -> None:
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        grads = [p.grad for p in trained if p.grad is not None]
        is_finite, digest = True, self.digest()

        def average() -> None:
            nonlocal is_finite
            is_finite = self.group.all_reduce_mean(grads, digest)

        if self.run_collective(average) and not is_finite:
            self.on_bad_gradients()
