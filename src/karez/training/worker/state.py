"""A rank's whole training state as bytes, and back, bit for bit."""

import pickle
import random
import struct
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

_LENGTH = struct.Struct("<q")


class Stateful(Protocol):
    """Anything with a state_dict: optimizers, schedulers, loaders."""

    def state_dict(self) -> Mapping[str, Any]:
        """Its state."""
        ...

    def load_state_dict(self, state: Any, /) -> object:
        """Take a state back."""
        ...


@dataclass(slots=True, kw_only=True)
class Tracked:
    """What a session keeps for its user."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    others: dict[str, Stateful]


class History:
    """The newest losses, kept with the state: a node may be lost before it has reported them."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._losses: deque[tuple[int, float]] = deque(maxlen=64)

    def add(self, step: int, loss: float) -> None:
        """Note a completed step."""
        self._losses.append((step, loss))

    def state_dict(self) -> Mapping[str, Any]:
        """See Stateful."""
        return {"losses": list(self._losses)}

    def load_state_dict(self, state: Any, /) -> object:
        """See Stateful."""
        self._losses = deque(state["losses"], maxlen=64)
        return None


@dataclass(frozen=True, slots=True)
class _Tensor:
    """Stands for a tensor in the pickled part."""

    index: int


def pack(tracked: Tracked) -> list[bytes | memoryview]:
    """The state as parts to be joined. Frozen parameters are left out: they come from the base."""
    tensors: list[torch.Tensor] = []
    tree = {
        "model": {name: value for name, value in _moving(tracked.model).items()},
        "optimizer": tracked.optimizer.state_dict(),
        "others": {name: item.state_dict() for name, item in tracked.others.items()},
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": np.random.get_state(),
    }
    if torch.cuda.is_available():
        tree["cuda"] = torch.cuda.get_rng_state()
    skeleton = _lift(tree, tensors)
    specs = [(str(t.dtype).removeprefix("torch."), tuple(t.shape)) for t in tensors]
    head = pickle.dumps((skeleton, specs), protocol=pickle.HIGHEST_PROTOCOL)
    return [_LENGTH.pack(len(head)), head, *(_bytes(tensor) for tensor in tensors)]


def unpack(body: bytes, tracked: Tracked) -> None:
    """Put a packed state back into the tracked objects and the random generators."""
    (length,) = _LENGTH.unpack_from(body, 0)
    at = _LENGTH.size + length
    skeleton, specs = pickle.loads(body[_LENGTH.size : at])  # noqa: S301 - written by this job
    tensors: list[torch.Tensor] = []
    for name, shape in specs:
        dtype: torch.dtype = getattr(torch, name)
        count = int(np.prod(shape)) if shape else 1
        size = count * dtype.itemsize
        raw = torch.frombuffer(bytearray(body[at : at + size]), dtype=torch.uint8)
        tensors.append(raw.view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype))
        at += size
    tree = _lower(skeleton, tensors)
    with torch.no_grad():
        for name, value in _moving(tracked.model).items():
            value.copy_(tree["model"][name])
    tracked.optimizer.load_state_dict(tree["optimizer"])
    for name, item in tracked.others.items():
        item.load_state_dict(tree["others"][name])
    torch.set_rng_state(tree["torch"])
    random.setstate(tree["python"])
    np.random.set_state(tree["numpy"])
    if "cuda" in tree and torch.cuda.is_available():
        torch.cuda.set_rng_state(tree["cuda"])


def size_of(parts: list[bytes | memoryview]) -> int:
    """Bytes of all parts together."""
    return sum(len(part) for part in parts)


def room_for(tracked: Tracked) -> int:
    """A capacity that will hold the state once the optimizer has its moments."""
    moving = sum(t.numel() * t.element_size() for t in _moving(tracked.model).values())
    return int(size_of(pack(tracked)) + 3 * moving + (1 << 20))


def _moving(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What training changes: trainable parameters and buffers that are saved."""
    found = {name: p.data for name, p in model.named_parameters() if p.requires_grad}
    saved = set(model.state_dict(keep_vars=True))
    found.update((name, b) for name, b in model.named_buffers() if name in saved)
    return found


def _bytes(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else memoryview(b"")


def _lift(value: Any, tensors: list[torch.Tensor]) -> Any:
    """A copy with every tensor replaced by its index."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return _Tensor(len(tensors) - 1)
    if isinstance(value, Mapping):
        return {key: _lift(item, tensors) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_lift(item, tensors) for item in value)
    return value


def _lower(value: Any, tensors: list[torch.Tensor]) -> Any:
    if isinstance(value, _Tensor):
        return tensors[value.index]
    if isinstance(value, dict):
        return {key: _lower(item, tensors) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_lower(item, tensors) for item in value)
    return value
