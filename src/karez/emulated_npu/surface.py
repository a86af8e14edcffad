"""Makes the module torch.npu: the functions that programs call on the device."""

import contextlib
import sys
import types
from typing import Any

import torch

from karez.core import environment
from karez.emulated_npu.collectives import restart_device, stop_device
from karez.emulated_npu.memory import NAME, Usage
from karez.emulated_npu.random import DeviceRandom
from karez.emulated_npu.streams import (
    FIRST,
    Event,
    Stream,
    current_stream,
    stream_context,
    synchronize,
)
from karez.emulated_npu.visibility import visible_count
from karez.runtime.process_environment import read

_MIB = 1 << 20


class _Device(contextlib.ContextDecorator):
    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Accept any index."""

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


_NO_OPS = (
    "set_stream",
    "init",
    "_lazy_init",
    "set_device",
    "empty_cache",
    "ipc_collect",
    "reset_accumulated_memory_stats",
)
"""Functions of torch.npu that have nothing to do on the emulated device."""


def make_module() -> Any:
    """Make the module torch.npu."""
    made: Any = types.ModuleType("torch.npu")
    made.__dict__.update(dict.fromkeys(_NO_OPS, _nothing))
    devices, random, memory = _device_functions(), _random_functions(), _memory_functions()
    made.__dict__.update({**devices, **random, **_properties(), **memory})
    parts = {
        "amp": {"autocast": _Autocast, "GradScaler": _GradScaler},
        "random": random,
        "memory": memory,
        "streams": {"Stream": Stream, "Event": Event},
    }
    for name, functions in parts.items():
        part = types.ModuleType(f"torch.npu.{name}")
        part.__dict__.update(functions)
        sys.modules[part.__name__] = part
        setattr(made, name, part)
    return made


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    return None


def _device_functions() -> dict[str, Any]:
    return dict(
        Stream=Stream,
        Event=Event,
        device=_Device,
        stream=stream_context,
        StreamContext=stream_context,
        current_stream=current_stream,
        synchronize=synchronize,
        default_stream=lambda _=None: FIRST,
        is_available=lambda: True,
        is_initialized=lambda: True,
        _is_in_bad_fork=lambda: False,
        device_count=visible_count,
        current_device=lambda: 0,
        stop_device=stop_device,
        restart_device=restart_device,
    )


def _random_functions() -> dict[str, Any]:
    random = DeviceRandom
    return dict(
        manual_seed=random.manual_seed,
        # a generator that is the CPU's is seeded as the CPU's
        manual_seed_all=lambda seed: random.manual_seed(seed) if random.is_own() else None,
        seed=lambda: random.generator.seed() if random.is_own() else None,
        seed_all=lambda: random.generator.seed() if random.is_own() else None,
        initial_seed=lambda: random.generator.initial_seed(),
        get_rng_state=lambda _=NAME: random.generator.get_state(),
        set_rng_state=lambda state, _=NAME: random.generator.set_state(state),
        get_rng_state_all=lambda: [random.generator.get_state()],
        set_rng_state_all=lambda states: random.generator.set_state(states[0]) if states else None,
    )


def _properties() -> dict[str, Any]:
    properties = types.SimpleNamespace(
        name="Ascend-emulated", total_memory=Usage.total, multi_processor_count=20, major=0, minor=0
    )
    return dict(
        is_bf16_supported=lambda *_: "bfloat16" not in read(environment.EMUNPU_NO_DTYPES),
        get_amp_supported_dtype=lambda: [torch.float16, torch.bfloat16, torch.float32],
        get_device_name=lambda _=None: properties.name,
        get_device_properties=lambda _=None: properties,
        get_device_capability=lambda _=None: (0, 0),
    )


def _memory_functions() -> dict[str, Any]:
    return dict(
        memory_allocated=lambda _=None: Usage.now,
        memory_reserved=lambda _=None: Usage.now,
        max_memory_allocated=lambda _=None: Usage.peak,
        max_memory_reserved=lambda _=None: Usage.peak,
        mem_get_info=lambda _=None: (Usage.limit - Usage.now, Usage.total),
        set_per_process_memory_fraction=lambda share, _=None: setattr(
            Usage, "limit", int(Usage.total * share)
        ),
        reset_peak_memory_stats=lambda _=None: setattr(Usage, "peak", Usage.now),
        memory_summary=lambda *_args, **_kwargs: f"emulated npu: {Usage.now // _MIB} MiB",
        memory_stats=lambda _=None: {
            "allocated_bytes.all.current": Usage.now,
            "allocated_bytes.all.peak": Usage.peak,
        },
    )
