"""The collective backends by name."""

from collections.abc import Callable
from importlib import import_module

import torch.distributed as dist

from karez.core.errors import BadRequest
from karez.runtime.collective_backends import CollectiveBackend
from karez.runtime.device import granted_device, own_collectives
from karez.runtime.device_backends import HcclBackend, NcclBackend
from karez.runtime.gloo_backend import GlooBackend


def collective_backend(name: str) -> CollectiveBackend:
    """Create a backend. Raises BadRequest if it is unknown or not available on this node."""
    if name not in _BACKENDS:
        raise BadRequest(
            problem=f"there are no collectives called {name!r}",
            fix=f"One of {', '.join(_BACKENDS)}.",
        )
    return _BACKENDS[name]()


def _nccl() -> CollectiveBackend:
    device = granted_device()
    if own_collectives(device) != "nccl" or not dist.is_nccl_available():
        raise BadRequest(
            problem="nccl needs a GPU and a torch built with NCCL",
            fix='Take a node that has both, or say collectives="gloo".',
        )
    return NcclBackend(device)


def _hccl() -> CollectiveBackend:
    device = granted_device()
    if own_collectives(device) != "hccl":
        raise BadRequest(problem="hccl needs an NPU", fix='Ask for one, or say collectives="gloo".')
    return HcclBackend(import_module("torch_npu").npu, device)


_BACKENDS: dict[str, Callable[[], CollectiveBackend]] = {
    "gloo": GlooBackend,
    "nccl": _nccl,
    "hccl": _hccl,
}
