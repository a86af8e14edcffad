"""Patches torch where its hooks for devices written in Python do not suffice."""

from typing import Any

import torch

from karez.core import environment
from karez.core.errors import BadRequest
from karez.emulated_npu.memory import CPU, NAME, bytes_of, storage_of, unwrap


def patch(module: Any) -> None:
    """Patch what torch's hooks for devices written in Python cannot express (torch 2.13)."""
    accelerator: Any = torch.accelerator
    for name in accelerator.__all__:
        if hasattr(module, name) and name not in ("is_available", "device_count"):
            setattr(accelerator, name, getattr(module, name))
            if hasattr(accelerator.memory, name):
                setattr(accelerator.memory, name, getattr(module, name))
    accelerator.set_device_index = module.set_device
    accelerator.current_device_index = module.current_device
    accelerator.get_memory_info = module.mem_get_info
    _patch_generator()
    _patch_storages()
    _patch_backward()
    tensors: Any = torch.Tensor
    tensors.pin_memory = lambda self, device=None: self  # noqa: ARG005 - torch's signature
    tensors.is_pinned = lambda self, device=None: False  # noqa: ARG005 - torch's signature
    torch.serialization.register_package(
        5,
        lambda storage: f"{NAME}:0" if storage.device.type == NAME else None,
        lambda storage, place: storage_of(storage) if place.startswith(NAME) else None,
    )


def _patch_backward() -> None:
    """Say why a backward fails where autograd was started before there was the device."""
    autograd: Any = torch.autograd
    plain = autograd._engine_run_backward

    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return plain(*args, **kwargs)
        except RuntimeError as error:
            if "device_ready_queues_" not in str(error):
                raise
            raise BadRequest(
                problem="autograd ran in this process before the emulated NPU was installed, and "
                "cannot take one more device",
                fix=f"Install it before the first backward; {environment.EMUNPU}=1 does.",
            ) from error

    autograd._engine_run_backward = autograd.graph._engine_run_backward = run


def _patch_generator() -> None:
    library: Any = torch  # its classes cannot be replaced by their types
    plain = library.Generator

    def make(cls: Any, device: Any = "cpu") -> Any:
        where = CPU if torch.device(device).type == NAME else device
        return plain.__new__(cls, where)

    library.Generator = type("Generator", (plain,), {"__new__": make})


def _patch_storages() -> None:
    storages: Any = torch.UntypedStorage
    tensors: Any = torch.Tensor

    def resize(storage: Any, size: int) -> Any:
        storage._cpu.resize_(size)
        return storage

    def fill(storage: Any, value: int) -> Any:
        storage._cpu.fill_(value)
        return storage

    def read(storage: Any, *rest: Any) -> Any:
        storage._cpu._set_from_file(*rest)
        return storage

    plain_copy = storages.copy_

    def copy(target: Any, source: Any, *rest: Any) -> Any:
        near, far = (s._cpu if s.device.type == NAME else s for s in (target, source))
        plain_copy(near, far, *rest)
        return target

    for owner, name, ours in (
        (storages, "cpu", lambda s: s._cpu.clone()),
        (storages, "clone", lambda s: storage_of(s._cpu.clone())),  # deepcopy of a tensor
        (storages, "fill_", fill),
        (storages, "_set_from_file", read),
        (storages, "tolist", lambda s: s._cpu.tolist()),
        (storages, "__getitem__", lambda s, at: s._cpu[at]),
        (storages, "data_ptr", lambda s: s._cpu.data_ptr()),
        (storages, "nbytes", lambda s: bytes_of(s._cpu)),
        (storages, "size", lambda s: bytes_of(s._cpu)),
        (storages, "resize_", resize),
        (storages, "_write_file", lambda s, *rest: s._cpu._write_file(*rest)),
        (tensors, "data_ptr", lambda t: unwrap(t).data_ptr()),
        (tensors, "record_stream", lambda _t, _s: None),
    ):
        _for_npu(owner, name, ours)
    storages.copy_ = copy
    _patch_new_storages(storages)


def _patch_new_storages(storages: Any) -> None:
    """Storages that are made on the device, or moved to and from it."""
    plain_new = storages.__new__

    def new(cls: Any, *args: Any, device: Any = None, **more: Any) -> Any:
        if device is None or torch.device(device).type != NAME:
            where = {} if device is None else {"device": device}
            return plain_new(cls, *args, **where, **more)
        return storage_of(plain_new(cls, *args, **more))

    def to(storage: Any, *, device: Any, non_blocking: bool = False) -> Any:
        target = torch.device(device)
        if NAME not in (target.type, storage.device.type):
            return plain_to(storage, device=device, non_blocking=non_blocking)
        if target.type == storage.device.type:
            return storage
        near = (storage._cpu if storage.device.type == NAME else storage.cpu()).clone()
        return storage_of(near) if target.type == NAME else plain_to(near, device=target)

    plain_to = storages.to
    storages.__new__, storages.to = new, to


def _for_npu(owner: Any, name: str, ours: Any) -> None:
    """Replace a method for objects on the device; all others keep the original."""
    before = getattr(owner, name)

    def either(self: Any, *args: Any, **kwargs: Any) -> Any:
        return (ours if self.device.type == NAME else before)(self, *args, **kwargs)

    setattr(owner, name, either)
