"""Random numbers of the emulated device: from a generator of its own, or the CPU's."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

_aten: Any = torch.ops.aten


class DeviceRandom:
    """The generator that operators of the device draw from.

    A real device has its own. The CPU's is the default here, so that a program that is verified
    draws the same numbers on both.
    """

    generator: torch.Generator = torch.default_generator

    @classmethod
    def use_own(cls) -> None:
        """Give the device a generator of its own, seeded as the CPU's was."""
        cls.generator = torch.Generator()
        cls.generator.manual_seed(torch.initial_seed())

    @classmethod
    def manual_seed(cls, seed: int) -> None:
        """Seed the device's generator."""
        cls.generator.manual_seed(int(seed))

    @classmethod
    def is_own(cls) -> bool:
        """Whether the device has a generator of its own."""
        return cls.generator is not torch.default_generator


def draw(op: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run an operator on CPU tensors; what it draws comes from the device's generator."""
    if op is _aten.native_dropout.default:
        return _dropout(*args, **kwargs)
    place = _place_of_generator(op)
    if place is None:
        return op(*args, **kwargs)
    if place < len(args):
        given = args[place] or DeviceRandom.generator
        return op(*args[:place], given, *args[place + 1 :], **kwargs)
    return op(*args, **{**kwargs, "generator": kwargs.get("generator") or DeviceRandom.generator})


@cache
def _place_of_generator(op: Any) -> int | None:
    names = [argument.name for argument in op._schema.arguments]
    return names.index("generator") if "generator" in names else None


def _dropout(x: torch.Tensor, p: float, train: bool | None = None) -> Any:
    """As torch's own on the CPU, which takes no generator (torch 2.13, native_dropout_cpu)."""
    if train is False:
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    kept = 1.0 - p
    mask = torch.empty_like(x, dtype=torch.bool).bernoulli_(kept, generator=DeviceRandom.generator)
    return (x * mask).mul_(1.0 / kept if kept else 0.0), mask
