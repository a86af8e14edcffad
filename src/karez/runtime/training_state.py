"""Conversion of a rank's training state to bytes and back, bit for bit.

The state has two parts. The *per-rank* part is the rank's own: random generators, cursor, losses,
schedulers. The *shared* part is the model and its optimizer. Where all ranks hold replicas of the
shared part, a rank that lost it takes it from another; where it is sharded, each rank has its own.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from karez.runtime import plain_pickle
from karez.runtime.device_staging import DeviceStaging, StagedCopy
from karez.runtime.random_state import generator_states, restore_generators
from karez.runtime.sharded_tensors import local_of, placed_like
from karez.runtime.shards import ShardedOptimizer
from karez.runtime.tracked import Stateful, Tracked

HEAD = struct.Struct("<qq")  # bytes of the per-rank part, bytes of the shared part
_LENGTH = struct.Struct("<q")
_NUMPYS = frozenset((torch.float32, torch.float16, torch.int64, torch.uint8))
"""Types of most tensors in a state, which NumPy has too."""
_PLAIN = frozenset((int, float, str, bool, bytes, type(None)))
Bytes = bytes | memoryview


@dataclass(frozen=True, slots=True)
class _Tensor:
    """Index of a tensor, in its place in the pickled part.

    Stored snapshots name this class by its module: it must stay in this one.
    """

    index: int


@dataclass(slots=True)
class Packed:
    """A state as parts to be joined."""

    per_rank: list[Bytes]
    shared: list[Bytes] = field(default_factory=list)
    copy: StagedCopy | None = None
    """Copies of the shared part's tensors that are still on their way from the device."""

    @property
    def parts(self) -> list[Bytes]:
        """All parts, after a head that says where the shared part begins."""
        return [
            HEAD.pack(size_of(self.per_rank), size_of(self.shared)),
            *self.per_rank,
            *self.shared,
        ]

    @property
    def per_rank_bytes(self) -> int:
        """Bytes of the head and the per-rank part."""
        return HEAD.size + size_of(self.per_rank)


def pack(tracked: Tracked, staging: DeviceStaging | None = None) -> Packed:
    """Pack the whole state. Frozen parameters are left out: they come from the base model.

    With `staging`, the shared part is copied from its device beside what follows. The per-rank part
    never is: a forward changes buffers.
    """
    tree = {
        "model": _own(tracked, _trainable(tracked.model)),
        "optimizer": tracked.optimizer.state_dict(),
    }
    if staging is None:
        return Packed(per_rank=pack_per_rank(tracked), shared=_serialize(tree))
    per_rank = b"".join(pack_per_rank(tracked))  # a copy: it is written later
    staging.begin()
    shared = _serialize(tree, staging.bytes_of)
    return Packed(per_rank=[per_rank], shared=shared, copy=staging.end())


def pack_per_rank(tracked: Tracked) -> list[Bytes]:
    """Pack the per-rank part."""
    tree = {
        "buffers": _buffers(tracked.model),
        "others": {name: item.state_dict() for name, item in tracked.others.items()},
        **generator_states(tracked.devices),
    }
    return _serialize(tree)


def split(body: bytes) -> tuple[bytes, bytes]:
    """Split joined parts into per-rank and shared part; the shared one may have been left out."""
    per_rank, _ = HEAD.unpack_from(body, 0)
    return body[HEAD.size : HEAD.size + per_rank], body[HEAD.size + per_rank :]


def is_whole(body: bytes) -> bool:
    """Whether joined parts have the shared part too."""
    per_rank, shared = HEAD.unpack_from(body, 0)
    return len(body) == HEAD.size + int(per_rank) + int(shared)


def unpack_per_rank(body: bytes, tracked: Tracked, *, own: bool = True) -> None:
    """Restore the per-rank part; with `own` False, that of another rank, without generators."""
    tree = _deserialize(body)
    with torch.no_grad():
        for name, buffer in _buffers(tracked.model).items():
            buffer.copy_(tree["buffers"][name])
    for name, item in tracked.others.items():
        if name in tree["others"]:
            item.load_state_dict(tree["others"][name])
    if own:
        restore_generators(tree)


def restore_extra(per_rank: bytes, name: str, other: Stateful) -> None:
    """Restore one more object from a per-rank part, if its state is there."""
    states = _deserialize(per_rank)["others"]
    if name in states:
        other.load_state_dict(states[name])


def unpack_shared(body: bytes, tracked: Tracked) -> None:
    """Restore the shared part from bytes; see `put_back`."""
    put_back(shared_tree(body), tracked)


def shared_tree(body: bytes) -> dict[str, Any]:
    """Return the states under "model" and "optimizer" of a shared part."""
    tree: dict[str, Any] = _deserialize(body)
    return tree


def put_back(tree: Mapping[str, Any], tracked: Tracked) -> None:
    """Restore the model and its optimizer. A sharded optimizer is gathered by the caller."""
    parameters = _own(tracked, _trainable(tracked.model))
    with torch.no_grad():
        for name, value in tree["model"].items():
            parameters[name].copy_(value)
    tracked.optimizer.load_state_dict(placed_like(tree["optimizer"], tracked.optimizer))


def size_of(parts: list[Bytes]) -> int:
    """Return the bytes of all parts together."""
    return sum(len(part) for part in parts)


def capacity_for(tracked: Tracked) -> int:
    """Return a capacity in bytes that will hold the state once the optimizer has its moments."""
    trained = sum(t.numel() * t.element_size() for t in _trainable(tracked.model).values())
    packed = pack(tracked)
    return int(size_of(packed.parts) + 3 * trained + (1 << 20))


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a tensor, without a copy where it is contiguous and on the CPU."""
    near = tensor.detach() if tensor.is_cpu else tensor.detach().cpu()
    if near.dtype in _NUMPYS and near.is_contiguous() and near.numel():
        return near.numpy().data.cast("B")  # a fifth of what the general way takes
    flat = near.reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def _trainable(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The trainable parameters; of sharded ones, this rank's part."""
    return {name: local_of(p.data) for name, p in model.named_parameters() if p.requires_grad}


def _buffers(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The buffers that are saved; per-rank, since running means differ from rank to rank."""
    if not any(True for _ in model.buffers()):
        return {}  # to list what is saved takes longer than the rest of a small model's snapshot
    saved = set(model.state_dict(keep_vars=True))
    return {name: local_of(b) for name, b in model.named_buffers() if name in saved}


def _own(tracked: Tracked, parameters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The parameters to pack: none with a sharded optimizer, whose slice holds their values."""
    return {} if isinstance(tracked.optimizer, ShardedOptimizer) else dict(parameters)


def _serialize(
    tree: Any, bytes_of: Callable[[torch.Tensor], memoryview] | None = None
) -> list[Bytes]:
    tensors: list[torch.Tensor] = []
    skeleton = _extract_tensors(tree, tensors)
    specs = [(str(t.dtype).removeprefix("torch."), tuple(t.shape)) for t in tensors]
    head = plain_pickle.dumps((skeleton, specs), _Tensor)
    return [_LENGTH.pack(len(head)), head, *map(bytes_of or tensor_bytes, tensors)]


_OWN = {(module, "_Tensor"): _Tensor for module in (__name__, "karez.training.worker.state")}
"""Names of `_Tensor` in pickles; the second is that of karez 0.1."""


def _deserialize(body: bytes) -> Any:
    (length,) = _LENGTH.unpack_from(body, 0)
    at = _LENGTH.size + length
    skeleton, specs = plain_pickle.loads(body[_LENGTH.size : at], _OWN)
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
