"""The states of the random generators of a process: torch, Python, NumPy, and the device."""

import random
from array import array
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch


def generator_states() -> dict[str, Any]:
    """Return the state of each random generator, by its library."""
    tree: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": _python_state(),
        "numpy": _numpy_state(),
    }
    if _has_cuda():
        tree["cuda"] = torch.cuda.get_rng_state()
    return tree


def restore_generators(tree: Mapping[str, Any]) -> None:
    """Restore what `generator_states` returned."""
    torch.set_rng_state(tree["torch"])
    version, words, gauss = tree["python"]
    random.setstate((version, tuple(array("I", words)), gauss))
    name, words, *rest = tree["numpy"]
    np.random.set_state((name, np.frombuffer(words, dtype=np.uint32), *rest))
    if "cuda" in tree and _has_cuda():
        torch.cuda.set_rng_state(tree["cuda"])


def _python_state() -> tuple[Any, ...]:
    """Return Python's state with bytes for its 625 words, each of which pickle would visit."""
    version, words, gauss = random.getstate()
    return version, array("I", words).tobytes(), gauss


def _numpy_state() -> tuple[Any, ...]:
    name, words, *rest = np.random.get_state()
    return name, np.asarray(words).tobytes(), *rest


@cache
def _has_cuda() -> bool:
    return bool(torch.cuda.is_available())
