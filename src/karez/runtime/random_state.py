"""The states of the random generators of a process: torch, Python, NumPy, and its devices."""

import random
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from karez.runtime.device import random_states, restore_random_states


def generator_states(devices: Sequence[torch.device] = ()) -> dict[str, Any]:
    """Return the state of each random generator, by its library; of the devices under "devices"."""
    return {
        "torch": torch.get_rng_state(),
        "python": _python_state(),
        "numpy": _numpy_state(),
        "devices": random_states(devices),
    }


def restore_generators(tree: Mapping[str, Any]) -> None:
    """Restore what `generator_states` returned."""
    torch.set_rng_state(tree["torch"])
    version, words, gauss = tree["python"]
    random.setstate((version, tuple(array("I", words)), gauss))
    name, words, *rest = tree["numpy"]
    np.random.set_state((name, np.frombuffer(words, dtype=np.uint32), *rest))
    restore_random_states(tree.get("devices", {}))  # snapshots of karez 0.1 have none


def _python_state() -> tuple[Any, ...]:
    """Return Python's state with bytes for its 625 words, each of which pickle would visit."""
    version, words, gauss = random.getstate()
    return version, array("I", words).tobytes(), gauss


def _numpy_state() -> tuple[Any, ...]:
    name, words, *rest = np.random.get_state()
    return name, np.asarray(words).tobytes(), *rest
