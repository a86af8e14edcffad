"""Gradients in buckets, which travel while the rest of the backward is computed."""

from collections.abc import Sequence

import torch

FIRST_BYTES, BUCKET_BYTES = 1 << 20, 25 << 20
"""The first bucket is small, so that the first collective starts early. Both sizes are those of
DistributedDataParallel (torch 2.13)."""


class Bucket:
    """Gradients of one type in one flat tensor, and numbers of the step that travel with them."""

    def __init__(
        self, parameters: Sequence[torch.nn.Parameter], device: torch.device, *, numbers: int = 0
    ) -> None:
        """Allocate the flat tensor on the device from which it travels."""
        self.parameters = parameters
        size = sum(parameter.numel() for parameter in parameters)
        dtype = parameters[0].dtype if parameters else torch.float32
        self.flat = torch.zeros(size + numbers, dtype=dtype, device=device)
        self.numbers = self.flat[size:]
        """Numbers of the step: float32, after the gradients."""
        self._grads = self.flat[:size]
        self._is_here = all(parameter.device == device for parameter in parameters)
        self._views = []
        at = 0
        for parameter in parameters:
            piece = self.flat[at : at + parameter.numel()]
            self._views.append(piece.view(parameter.shape))
            at += parameter.numel()

    @torch.no_grad()
    def fill(self, scale: float) -> None:
        """Copy the gradients, times a scale, into the flat tensor; absent ones are zero."""
        for parameter, view in zip(self.parameters, self._views, strict=True):
            grad = parameter.grad
            if grad is view:
                view.mul_(scale)  # it was accumulated in place
            elif grad is None:
                view.zero_()
            elif grad.is_sparse or not self._is_here:
                view.copy_(grad.to_dense() if grad.is_sparse else grad).mul_(scale)
            else:
                torch.mul(grad, scale, out=view)

    @torch.no_grad()
    def give_back(self) -> None:
        """Make the pieces of the flat tensor the parameters' gradients."""
        for parameter, view in zip(self.parameters, self._views, strict=True):
            parameter.grad = view if self._is_here else view.to(parameter.device)

    def total(self) -> torch.Tensor:
        """Return the sum of all gradients, which is finite only if each of them is."""
        return self._grads.sum(dtype=torch.float32)


def make_buckets(
    parameters: Sequence[torch.nn.Parameter], device: torch.device, *, numbers: int
) -> list[Bucket]:
    """Put parameters into buckets, the last first: in about that order a backward reaches them.

    Args:
        parameters: The trained parameters.
        device: From which gradients travel.
        numbers: How many numbers of the step travel with the first float32 gradients.
    """
    groups: list[list[torch.nn.Parameter]] = []
    open_groups: dict[tuple[torch.dtype, torch.device], int] = {}
    limits = {0: FIRST_BYTES}
    for parameter in reversed(parameters):
        key = (parameter.dtype, parameter.device)
        at = open_groups.get(key)
        if at is None:
            open_groups[key] = at = len(groups)
            groups.append([])
        groups[at].append(parameter)
        if _bytes_of(groups[at]) >= limits.get(at, BUCKET_BYTES):
            del open_groups[key]
    carrier = next((n for n, group in enumerate(groups) if group[0].dtype == torch.float32), None)
    buckets = [
        Bucket(group, device, numbers=numbers if number == carrier else 0)
        for number, group in enumerate(groups)
    ]
    if carrier is None:  # 16-bit gradients cannot carry them exactly
        buckets.insert(0, Bucket((), device, numbers=numbers))
    return buckets


def _bytes_of(parameters: Sequence[torch.nn.Parameter]) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)
