"""The collectives of the emulated device: `hccl` is gloo on the bytes behind its tensors."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from karez.emulated_npu import memory
from karez.transport.open_sockets import open_sockets, opened_since, shut

_C: Any = torch._C


class _Device:
    """Whether the device takes work, and the sockets of its groups."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_stopped = False
        self.sockets: dict[int, str] = {}
        self.before_forming: dict[int, str] | None = None


_DEVICE = _Device()


def stop_device(_index: int = 0) -> int:
    """Stop the device: collectives under way fail, as do those of a group that is forming.

    Returns 0: it could be stopped. As torch_npu's function of this name.
    """
    with _DEVICE.lock:
        before = _DEVICE.before_forming
        _DEVICE.is_stopped = True
        shut(_DEVICE.sockets if before is None else {**_DEVICE.sockets, **opened_since(before)})
        _DEVICE.sockets = {}
    return 0


def is_stopped() -> bool:
    """Whether the device is stopped."""
    return _DEVICE.is_stopped


def restart_device(_index: int = 0) -> None:
    """Let the device take work again. As torch_npu's function of this name."""
    with _DEVICE.lock:
        _DEVICE.is_stopped = False


def register_collectives(kept: list[Any]) -> None:
    """Register the backend hccl and the device's kernels; `kept` receives their library."""
    import torch.distributed as dist  # noqa: PLC0415 - not in every build of torch

    distributed: Any = dist
    gloo = distributed.distributed_c10d.ProcessGroupGloo

    def make(store: Any, rank: int, size: int, timeout: Any) -> Any:
        with _forming():
            return gloo(store, rank, size, timeout)

    dist.Backend.register_backend("hccl", make, devices=[memory.NAME, "cpu"])
    distributed.is_hccl_available = lambda: True
    library = torch.library.Library("c10d", "IMPL")
    kept.append(library)
    for name in _C._dispatch_get_all_op_names():
        is_ours = name.startswith("c10d::")
        if is_ours and _C._dispatch_has_kernel_for_dispatch_key(name, "PrivateUse1"):
            base, _, overload = name[6:].partition(".")
            op = getattr(getattr(torch.ops.c10d, base), overload or "default")
            library.impl(name[6:], _on_cpu(op), "PrivateUse1", allow_override=True)


@contextlib.contextmanager
def _forming() -> Any:
    """Note the sockets that forming a group opens. Raises RuntimeError on a stopped device."""
    with _DEVICE.lock:
        if _DEVICE.is_stopped:
            raise RuntimeError("the device is stopped: restart it first")
        before = _DEVICE.before_forming = open_sockets()
    try:
        yield
        with _DEVICE.lock:
            _DEVICE.sockets |= opened_since(before)
    finally:
        with _DEVICE.lock:
            _DEVICE.before_forming = None


def _on_cpu(op: Any) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        plain, named = pytree.tree_map(
            lambda x: memory.unwrap(x) if memory.is_npu(x) else x, (args, kwargs)
        )
        ours = {
            id(near): own
            for near, own in zip(
                pytree.tree_leaves((plain, named)), pytree.tree_leaves((args, kwargs)), strict=True
            )
        }
        return pytree.tree_map(lambda out: ours.get(id(out), out), op(*plain, **named))

    return call
