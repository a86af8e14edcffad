"""A rank's whole training state as bytes, and back, bit for bit.

It has two parts. The *light* one is the rank's own: random generators, cursor, losses, schedulers.
The *heavy* one is the model and its optimizer. Where all ranks hold the same heavy part, one that
lost it takes it from another; where it is sharded, each rank's is its own too.
"""

import pickle
import random
import struct
from array import array
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
import xxhash

from karez.runtime.shards import ShardedOptimizer, is_sharded_tensor, local_of, placed_like

HEAD = struct.Struct("<qq")  # bytes of the light part, bytes of the heavy part
_LENGTH = struct.Struct("<q")
_NUMPYS = frozenset((torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8))
"""Types that NumPy has too."""
_PLAIN = frozenset((int, float, str, bool, bytes, type(None)))
Bytes = bytes | memoryview
DIGEST_BYTES = 64 << 20
"""Replicas are compared after every step up to this size of the model, after every second up to
twice that, and so on: XXH3 goes through 64 MiB in about 5 ms, at the speed of the memory."""


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

    @property
    def is_sharded(self) -> bool:
        """Whether a rank's heavy part is its own and nobody else's."""
        return isinstance(self.optimizer, ShardedOptimizer) or not self.is_alike

    @property
    def is_alike(self) -> bool:
        """Whether all ranks have the same parameters after a step."""
        return not any(is_sharded_tensor(parameter) for parameter in self.model.parameters())


class History:
    """The newest losses, kept with the state: a node may be lost before it has reported them."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.losses: deque[tuple[int, float]] = deque(maxlen=64)

    def add(self, step: int, loss: float) -> None:
        """Note a completed step."""
        self.losses.append((step, loss))

    def state_dict(self) -> Mapping[str, Any]:
        """See Stateful."""
        steps, losses = zip(*self.losses, strict=True) if self.losses else ((), ())
        return {"steps": steps, "losses": losses}  # two rows of numbers are kept much sooner

    def load_state_dict(self, state: Any, /) -> object:
        """See Stateful."""
        self.losses = deque(zip(state["steps"], state["losses"], strict=True), maxlen=64)
        return None


@dataclass(frozen=True, slots=True)
class _Tensor:
    """Stands for a tensor in the pickled part."""

    index: int


@dataclass(slots=True)
class Packed:
    """A state as parts to be joined."""

    per_rank: list[Bytes]
    shared: list[Bytes] = field(default_factory=list)

    @property
    def parts(self) -> list[Bytes]:
        """All of it, with a head that says where the heavy part begins."""
        return [
            HEAD.pack(size_of(self.per_rank), size_of(self.shared)),
            *self.per_rank,
            *self.shared,
        ]

    @property
    def per_rank_bytes(self) -> int:
        """Bytes of the head and the light part."""
        return HEAD.size + size_of(self.per_rank)


def pack(tracked: Tracked) -> Packed:
    """The whole state. Frozen parameters are left out: they come from the base."""
    model = _own(tracked, _trainable(tracked.model))
    heavy = _serialize({"model": model, "optimizer": tracked.optimizer.state_dict()})
    return Packed(per_rank=pack_per_rank(tracked), shared=heavy)


def digest_of(model: torch.nn.Module) -> int:
    """32 bits of XXH3 of the trained parameters; not of buffers: each rank has its own means."""
    checksum = xxhash.xxh3_64()
    for parameter in model.parameters():
        if parameter.requires_grad:
            checksum.update(_bytes(parameter.data))
    return checksum.intdigest() & 0xFFFFFFFF


def digest_every(model: torch.nn.Module) -> int:
    """After how many steps replicas are compared."""
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    return int(1 + size // DIGEST_BYTES)


def inject_bit_error(model: torch.nn.Module) -> None:
    """Chaos: what a faulty memory cell would do."""
    parameter = next(p for p in model.parameters() if p.requires_grad)
    flat = local_of(parameter.data).reshape(-1)
    if flat.numel():
        flat[0] = -flat[0] if float(flat[0]) else 1.0


def pack_per_rank(tracked: Tracked) -> list[Bytes]:
    """What is this rank's own."""
    tree = {
        "buffers": _buffers(tracked.model),
        "others": {name: item.state_dict() for name, item in tracked.others.items()},
        "torch": torch.get_rng_state(),
        "python": _python_state(),
        "numpy": _numpy_state(),
    }
    if _has_cuda():
        tree["cuda"] = torch.cuda.get_rng_state()
    return _serialize(tree)


def _python_state() -> tuple[Any, ...]:
    """With bytes for its 625 words: each would be looked at and pickled alone."""
    version, words, gauss = random.getstate()
    return version, array("I", words).tobytes(), gauss


def _numpy_state() -> tuple[Any, ...]:
    name, words, *rest = np.random.get_state()
    return name, np.asarray(words).tobytes(), *rest


@cache
def _has_cuda() -> bool:
    return bool(torch.cuda.is_available())


def split(body: bytes) -> tuple[bytes, bytes]:
    """The light and the heavy part of joined parts; the heavy one may have been left out."""
    light, _ = HEAD.unpack_from(body, 0)
    return body[HEAD.size : HEAD.size + light], body[HEAD.size + light :]


def is_whole(body: bytes) -> bool:
    """Whether the heavy part is there."""
    light, heavy = HEAD.unpack_from(body, 0)
    return len(body) == HEAD.size + int(light) + int(heavy)


def unpack_per_rank(light: bytes, tracked: Tracked, *, own: bool = True) -> None:
    """Put the light part back; of another rank's, not the random generators."""
    tree = _deserialize(light)
    with torch.no_grad():
        for name, buffer in _buffers(tracked.model).items():
            buffer.copy_(tree["buffers"][name])
    for name, item in tracked.others.items():
        if name in tree["others"]:
            item.load_state_dict(tree["others"][name])
    if not own:
        return
    torch.set_rng_state(tree["torch"])
    version, words, gauss = tree["python"]
    random.setstate((version, tuple(array("I", words)), gauss))
    name, words, *rest = tree["numpy"]
    np.random.set_state((name, np.frombuffer(words, dtype=np.uint32), *rest))
    if "cuda" in tree and _has_cuda():
        torch.cuda.set_rng_state(tree["cuda"])


def restore_extra(light: bytes, name: str, other: Stateful) -> None:
    """Put one more thing's state back, if it was kept."""
    kept = _deserialize(light)["others"]
    if name in kept:
        other.load_state_dict(kept[name])


def unpack_shared(heavy: bytes, tracked: Tracked) -> None:
    """As `put_back`, from bytes."""
    put_back(shared_tree(heavy), tracked)


def shared_tree(heavy: bytes) -> dict[str, Any]:
    """The state of the model and of its optimizer, by these names."""
    tree: dict[str, Any] = _deserialize(heavy)
    return tree


def put_back(tree: Mapping[str, Any], tracked: Tracked) -> None:
    """Put the model and its optimizer back. A sharded optimizer is gathered by the caller."""
    mine = _own(tracked, _trainable(tracked.model))
    with torch.no_grad():
        for name, value in tree["model"].items():
            mine[name].copy_(value)
    tracked.optimizer.load_state_dict(placed_like(tree["optimizer"], tracked.optimizer))


def size_of(parts: list[Bytes]) -> int:
    """Bytes of all parts together."""
    return sum(len(part) for part in parts)


def capacity_for(tracked: Tracked) -> int:
    """A capacity that will hold the state once the optimizer has its moments."""
    moving = sum(t.numel() * t.element_size() for t in _trainable(tracked.model).values())
    packed = pack(tracked)
    return int(size_of(packed.parts) + 3 * moving + (1 << 20))


def _trainable(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The trainable parameters; of sharded ones, this rank's part."""
    return {name: local_of(p.data) for name, p in model.named_parameters() if p.requires_grad}


def _buffers(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Buffers that are saved: a rank's own, for running means differ from rank to rank."""
    if not any(True for _ in model.buffers()):
        return {}  # to list what is saved takes longer than the rest of a small model's snapshot
    saved = set(model.state_dict(keep_vars=True))
    return {name: local_of(b) for name, b in model.named_buffers() if name in saved}


def _own(tracked: Tracked, moving: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What of the model is kept: with a sharded optimizer nothing, for its slice says it all."""
    return {} if isinstance(tracked.optimizer, ShardedOptimizer) else dict(moving)


def _bytes(tensor: torch.Tensor) -> memoryview:
    near = tensor.detach() if tensor.is_cpu else tensor.detach().cpu()
    if near.dtype in _NUMPYS and near.is_contiguous() and near.numel():
        return near.numpy().data.cast("B")  # a fifth of what the general way takes
    flat = near.reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def _serialize(tree: Any) -> list[Bytes]:
    tensors: list[torch.Tensor] = []
    skeleton = _extract_tensors(tree, tensors)
    specs = [(str(t.dtype).removeprefix("torch."), tuple(t.shape)) for t in tensors]
    head = pickle.dumps((skeleton, specs), protocol=pickle.HIGHEST_PROTOCOL)
    return [_LENGTH.pack(len(head)), head, *(_bytes(tensor) for tensor in tensors)]


def _deserialize(body: bytes) -> Any:
    (length,) = _LENGTH.unpack_from(body, 0)
    at = _LENGTH.size + length
    skeleton, specs = pickle.loads(body[_LENGTH.size : at])  # noqa: S301 - written by this job
    tensors: list[torch.Tensor] = []
    for name, shape in specs:
        dtype: torch.dtype = getattr(torch, name)
        count = int(np.prod(shape)) if shape else 1
        size = count * dtype.itemsize
        if size:
            raw = torch.frombuffer(bytearray(body[at : at + size]), dtype=torch.uint8)
            tensors.append(raw.view(dtype).reshape(shape))
        else:
            tensors.append(torch.empty(shape, dtype=dtype))
        at += size
    return _insert_tensors(skeleton, tensors)


def _extract_tensors(value: Any, tensors: list[torch.Tensor]) -> Any:
    """A copy with every tensor replaced by its index."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, torch.Tensor):
        tensors.append(local_of(value))
        return _Tensor(len(tensors) - 1)
    if kind in (list, tuple):
        if _PLAIN.issuperset(map(type, value)):  # a row of numbers, such as losses
            return value
        return kind(_extract_tensors(item, tensors) for item in value)
    if isinstance(value, Mapping):
        return {key: _extract_tensors(item, tensors) for key, item in value.items()}
    return value


def _insert_tensors(value: Any, tensors: list[torch.Tensor]) -> Any:
    if isinstance(value, _Tensor):
        return tensors[value.index]
    if isinstance(value, dict):
        return {key: _insert_tensors(item, tensors) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_insert_tensors(item, tensors) for item in value)
    return value
