"""Tensors in nested tuples, lists and dictionaries."""

from collections.abc import Iterator
from typing import Any

import torch


def named_tensors(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of a value, named by their path; model outputs are dictionaries."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from named_tensors(item, f"{name}.{number}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from named_tensors(item, f"{name}.{key}")


def spoiled(value: Any, by: float) -> Any:
    """A copy of a value whose floating-point tensors are multiplied by 1 + `by`."""
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value * (1 + by)
    if isinstance(value, tuple):
        return tuple(spoiled(item, by) for item in value)
    return value
