"""torch.npu: the functions that programs call on the device's module."""

import contextlib
import os
import sys
import time
import types
from typing import Any

import torch

from karez.emulated_npu.memory import CPU, NAME, Usage, bytes_of, storage_of, unwrap

TOTAL_BYTES = 32 << 30
_MIB = 1 << 20


class Stream:
    """Work is done when it is asked for, so a stream has nothing to wait for."""

    device_type, stream_id, priority = NAME, 0, 0

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Any device, any priority."""

    @property
    def device(self) -> torch.device:
        """The only one."""
        return torch.device(NAME, 0)

    def synchronize(self, *_: Any) -> None:
        """Nothing is outstanding."""

    wait_stream = wait_event = synchronize

    def query(self) -> bool:
        """Whether all is done."""
        return True

    def record_event(self, event: Any = None) -> Any:
        """A mark."""
        found = event or Event()
        found.record()
        return found

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Event:
    """A moment."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Not recorded yet."""
        self._at = 0.0

    def record(self, _stream: Any = None) -> None:
        """Now."""
        self._at = time.perf_counter()

    def wait(self, *_: Any) -> None:
        """Nothing is outstanding."""

    synchronize = wait

    def query(self) -> bool:
        """Whether it has passed."""
        return True

    def elapsed_time(self, other: "Event") -> float:
        """Milliseconds to another."""
        return (other._at - self._at) * 1e3


class _Device(contextlib.ContextDecorator):
    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Any index."""

    def __enter__(self) -> "_Device":
        return self

    def __exit__(self, *_: object) -> None:
        return None


class _Autocast(torch.amp.autocast):
    def __init__(
        self, enabled: bool = True, dtype: Any = torch.float16, cache_enabled: bool = True
    ) -> None:
        super().__init__(NAME, dtype, enabled, cache_enabled)


class _GradScaler(torch.amp.GradScaler):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(NAME, *args, **kwargs)


def make_module() -> Any:
    """The module torch.npu."""
    made: Any = types.ModuleType("torch.npu")
    random = torch.default_generator
    current = Stream()
    properties = types.SimpleNamespace(
        name="Ascend-emulated", total_memory=TOTAL_BYTES, multi_processor_count=20, major=0, minor=0
    )

    def nothing(*_args: Any, **_kwargs: Any) -> None:
        return None

    for name in (
        "set_stream",
        "synchronize",
        "init",
        "_lazy_init",
        "set_device",
        "empty_cache",
        "ipc_collect",
        "manual_seed_all",
        "seed",
        "seed_all",
        "reset_accumulated_memory_stats",
        "set_per_process_memory_fraction",
    ):
        setattr(made, name, nothing)
    made.__dict__.update(
        Stream=Stream,
        Event=Event,
        device=_Device,
        stream=contextlib.nullcontext,
        StreamContext=contextlib.nullcontext,
        current_stream=lambda _=None: current,
        default_stream=lambda _=None: current,
        is_available=lambda: True,
        is_initialized=lambda: True,
        _is_in_bad_fork=lambda: False,
        device_count=lambda: int(os.environ.get("LOCAL_WORLD_SIZE", "1")),  # noqa: TID251 - a card each
        current_device=lambda: 0,
        manual_seed=lambda seed: random.manual_seed(int(seed)),
        initial_seed=random.initial_seed,
        get_rng_state=lambda _=NAME: random.get_state(),
        set_rng_state=lambda state, _=NAME: random.set_state(state),
        get_rng_state_all=lambda: [random.get_state()],
        set_rng_state_all=lambda states: random.set_state(states[0]) if states else None,
        is_bf16_supported=lambda *_: True,
        get_amp_supported_dtype=lambda: [torch.float16, torch.bfloat16, torch.float32],
        get_device_name=lambda _=None: properties.name,
        get_device_properties=lambda _=None: properties,
        get_device_capability=lambda _=None: (0, 0),
        memory_allocated=lambda _=None: Usage.now,
        memory_reserved=lambda _=None: Usage.now,
        max_memory_allocated=lambda _=None: Usage.peak,
        max_memory_reserved=lambda _=None: Usage.peak,
        mem_get_info=lambda _=None: (TOTAL_BYTES - Usage.now, TOTAL_BYTES),
        reset_peak_memory_stats=lambda _=None: setattr(Usage, "peak", Usage.now),
        memory_summary=lambda *_args, **_kwargs: f"emulated npu: {Usage.now // _MIB} MiB",
        memory_stats=lambda _=None: {
            "allocated_bytes.all.current": Usage.now,
            "allocated_bytes.all.peak": Usage.peak,
        },
    )
    made.amp = sys.modules["torch.npu.amp"] = types.ModuleType("torch.npu.amp")
    made.amp.autocast, made.amp.GradScaler = _Autocast, _GradScaler
    return made


def patch(module: Any) -> None:
    """What torch's hooks for devices written in Python cannot express (torch 2.13)."""
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
    tensors: Any = torch.Tensor
    tensors.pin_memory = lambda self, device=None: self  # noqa: ARG005 - torch's signature
    tensors.is_pinned = lambda self, device=None: False  # noqa: ARG005 - as above
    torch.serialization.register_package(
        5,
        lambda storage: f"{NAME}:0" if storage.device.type == NAME else None,
        lambda storage, place: storage_of(storage) if place.startswith(NAME) else None,
    )


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

    for owner, name, ours in (
        (storages, "cpu", lambda s: s._cpu.clone()),
        (storages, "data_ptr", lambda s: s._cpu.data_ptr()),
        (storages, "nbytes", lambda s: bytes_of(s._cpu)),
        (storages, "size", lambda s: bytes_of(s._cpu)),
        (storages, "resize_", resize),
        (storages, "_write_file", lambda s, *rest: s._cpu._write_file(*rest)),
        (tensors, "data_ptr", lambda t: unwrap(t).data_ptr()),
        (tensors, "record_stream", lambda _t, _s: None),
    ):
        _for_npu(owner, name, ours)


def _for_npu(owner: Any, name: str, ours: Any) -> None:
    """A method for objects on the device, the original for all others."""
    before = getattr(owner, name)

    def either(self: Any, *args: Any, **kwargs: Any) -> Any:
        return (ours if self.device.type == NAME else before)(self, *args, **kwargs)

    setattr(owner, name, either)
