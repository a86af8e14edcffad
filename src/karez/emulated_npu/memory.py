"""Tensors on the emulated device, which share their bytes with a CPU tensor.

An npu tensor has a storage with a null pointer and the right size; the CPU's storage hangs on its
Python object, which torch keeps as long as the storage. Views, offsets and aliasing are therefore
exact.
"""

import weakref
from typing import Any

import torch

NAME = "npu"
CPU = torch.device("cpu")
_aten: Any = torch.ops.aten
_C: Any = torch._C
KEYS: Any = _C.DispatchKeySet(_C.DispatchKey.CPU)
bytes_of: Any = torch.UntypedStorage.nbytes
"""The original, before the surface is patched."""
_set: Any = _aten.set_.source_Storage_storage_offset


class Usage:
    """Bytes on the emulated device."""

    total = 32 << 30
    """Capacity of the device."""
    limit = total
    """Bytes that this process may allocate of it."""
    now = 0
    peak = 0

    @classmethod
    def add(cls, count: int) -> None:
        """Add a number of bytes, negative to release them. Raises torch.OutOfMemoryError."""
        if count > 0 and cls.now + count > cls.limit:
            raise torch.OutOfMemoryError(
                f"NPU out of memory. Tried to allocate {_shown(count)} (NPU 0; "
                f"{_shown(cls.total)} total capacity; {_shown(cls.now)} already allocated; "
                f"{_shown(cls.limit - cls.now)} free)"
            )
        cls.now += count
        cls.peak = max(cls.peak, cls.now)

    @classmethod
    def resize(cls, total: int) -> None:
        """Give the device another capacity."""
        cls.total = cls.limit = total


def _shown(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.2f} MiB"


class _Borrowed(torch.Tensor):
    """A tensor used only for its storage; programs never see it."""

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares it as the disabled dispatch
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise RuntimeError("a tensor of the emulation's own has escaped")


def is_npu(value: object) -> bool:
    """Whether a value is a tensor on the emulated device."""
    return isinstance(value, torch.Tensor) and value.device.type == NAME


def storage_of(cpu: Any) -> Any:
    """A storage on the device for one of the CPU."""
    size = bytes_of(cpu)
    made: Any = torch.Tensor._make_wrapper_subclass(
        _Borrowed, (size,), dtype=torch.uint8, device=torch.device(NAME, 0)
    ).untyped_storage()
    made._cpu = cpu
    Usage.add(size)
    weakref.finalize(cpu, Usage.add, -size)
    return made


def view(storage: Any, like: torch.Tensor) -> torch.Tensor:
    """A tensor over a storage of the device, shaped as one of the CPU."""
    empty = _C._acc.create_empty_tensor([0], like.dtype)
    found: torch.Tensor = _set.redispatch(
        KEYS, empty, storage, like.storage_offset(), like.shape, like.stride()
    )
    return found


def wrap(cpu: torch.Tensor) -> torch.Tensor:
    """The device's tensor for one of the CPU."""
    return view(storage_of(cpu.untyped_storage()), cpu)


def unwrap(npu: torch.Tensor) -> torch.Tensor:
    """The CPU's tensor behind one of the device."""
    storage: Any = npu.untyped_storage()
    empty = torch.empty(0, dtype=npu.dtype)
    near = empty.set_(storage._cpu, npu.storage_offset(), npu.shape, npu.stride())
    near = near.conj() if npu.is_conj() else near
    return torch._neg_view(near) if npu.is_neg() else near


def repoint(npu: torch.Tensor, storage: Any, like: torch.Tensor) -> None:
    """Have a tensor of the device follow a change of shape that its CPU tensor went through."""
    _set.redispatch(KEYS, npu, storage, like.storage_offset(), like.shape, like.stride())


def set_storage(
    self: torch.Tensor, source: Any, offset: int = 0, size: Any = None, stride: Any = ()
) -> torch.Tensor:
    """`set_` for tensors of the device."""
    shape = (bytes_of(source) // self.element_size(),) if size is None else size
    steps = stride or torch.empty(shape, device="meta").stride()
    found: torch.Tensor = _set.redispatch(KEYS, self, source, offset, shape, steps)
    return found
