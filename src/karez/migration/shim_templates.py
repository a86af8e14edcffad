"""Texts from which the generated module is built."""

from karez.migration.rules.tensor_types import TYPES

HEAD = '''{generated} Edit it freely: it is yours.
"""The device that computes: CUDA, an NPU, another accelerator, or the CPU.

Functions are called as in torch.cuda, and on a machine without an accelerator do what those did
there. `type` is the type of the device in use, "cpu" where there is no other; `accelerator` is
never "cpu", and therefore what types are compared with. What came with later versions of torch is
asked for, not taken for granted. A look at the type counts devices and starts no driver: processes
can still be forked after it, and variables that select devices still be set.
"""

import importlib.util

import torch

if importlib.util.find_spec("torch_npu") is not None:
    import torch_npu  # noqa: F401  # registers the device


def _kind():
    if hasattr(torch, "accelerator"):
        built_for = torch.accelerator.current_accelerator()
        kinds = [built_for.type] if built_for is not None else []
    else:  # torch before 2.6
        kinds = ["npu", "cuda", "xpu"]
    for kind in kinds:
        module = getattr(torch, kind, None)
        if module is not None and module.device_count() > 0:
            return kind
    return "cpu"


def _module():
    """torch.cuda, torch.npu and so on; None on a CPU."""
    return None if _kind() == "cpu" else getattr(torch, _kind())


def _call(_name, _without, *args, **kwargs):
    """A function of the device's module, or what stands for it without one."""
    function = getattr(_module(), _name, None)
    return _without if function is None else function(*args, **kwargs)


def __getattr__(wanted):
    if wanted == "type":
        return _kind()
    if wanted == "accelerator":
        return "cuda" if _kind() == "cpu" else _kind()
    if wanted == "backend":
        return {"cpu": "gloo", "cuda": "nccl", "npu": "hccl", "xpu": "xccl"}.get(_kind(), "gloo")
    if wanted == "accelerator_backend":
        return "nccl" if _kind() == "cpu" else __getattr__("backend")
    raise AttributeError(wanted)


def device(index=None):
    """A torch.device of the accelerator from an index, a name or a device."""
    if index is None:
        return torch.device(_kind())
    if isinstance(index, torch.device):
        return index
    if isinstance(index, str):
        return torch.device(index.replace("cuda", _kind()) if "cuda" in index else index)
    return torch.device("cpu") if _kind() == "cpu" else torch.device(_kind(), int(index))


def name(index):
    """A device's name from its index, such as "npu:1"."""
    return str(device(index))
'''
SIMPLE = {
    # name: the value on a machine without an accelerator
    "is_available": "False",
    "device_count": "0",
    "synchronize": "None",
    "empty_cache": "None",
    "memory_allocated": "0",
    "max_memory_allocated": "0",
    "memory_reserved": "0",
    "max_memory_reserved": "0",
    "reset_peak_memory_stats": "None",
    "reset_accumulated_memory_stats": "None",
    "memory_stats": "{}",
    "memory_summary": '""',
    "memory_snapshot": "[]",
    "manual_seed": "None",
    "manual_seed_all": "None",
    "seed": "None",
    "set_rng_state_all": "None",
    "get_rng_state_all": "[]",
    "is_bf16_supported": "False",
    "is_initialized": "False",
    "ipc_collect": "None",
    "set_device": "None",
    "set_stream": "None",
    "set_per_process_memory_fraction": "None",
    "utilization": "0",
}
RAISING = (
    "current_device",
    "mem_get_info",
    "initial_seed",
    "get_rng_state",
    "set_rng_state",
    "current_stream",
    "default_stream",
    "get_device_name",
    "get_device_properties",
    "init",
)
"""Functions that raise on a machine without a device, in torch.cuda and in the generated module."""
COMPLETE = {
    "is_accelerated": '''
def is_accelerated(tensor):
    """Whether a tensor is on the accelerator, as `is_cuda` says for CUDA."""
    where = getattr(tensor, "device", None)
    if where is None and not hasattr(tensor, "data"):  # no tensor, but something like one
        return tensor.is_cuda
    if where is None:  # a packed sequence
        where = tensor.data.device
    return where.type == __getattr__("accelerator")
''',
    "is_backend_available": '''
def is_backend_available():
    """Whether torch.distributed has the accelerator's backend."""
    wanted, known = __getattr__("accelerator_backend"), torch.distributed
    if hasattr(known, "is_backend_available"):
        return known.is_backend_available(wanted)
    return getattr(known, f"is_{wanted}_available", lambda: wanted == "hccl")()
''',
    "set_default_tensor_type": '''
def set_default_tensor_type(dtype):
    """New tensors are of this type, and on the device."""
    if hasattr(torch, "set_default_device"):  # torch 2.0
        torch.set_default_device(_kind())
    elif _kind() != "cpu":
        name = {torch.float16: "HalfTensor", torch.float64: "DoubleTensor"}.get(dtype)
        torch.set_default_tensor_type(getattr(_module(), name or "FloatTensor"))
    if dtype.is_floating_point:
        torch.set_default_dtype(dtype)
''',
    "profiler_activity": '''
def profiler_activity():
    """What the profiler is told to watch."""
    known = torch.profiler.ProfilerActivity
    if _kind() == "npu":
        return getattr(known, "PrivateUse1", known.CPU)
    return getattr(known, __getattr__("accelerator").upper(), known.CPU)
''',
    "autocast": '''
class autocast(torch.autocast):  # noqa: N801
    """torch.cuda.amp.autocast: float16 unless another type is said, and off on a CPU."""

    def __init__(self, enabled=True, dtype=torch.float16, cache_enabled=True):
        kind = __getattr__("accelerator")
        if _kind() == "cpu":
            kind, enabled, dtype = "cpu", False, torch.bfloat16
        super().__init__(kind, dtype=dtype, enabled=enabled, cache_enabled=cache_enabled)
''',
    "GradScaler": '''
_has_scaler = hasattr(torch.amp, "GradScaler")  # for any device: torch 2.3


class GradScaler(torch.amp.GradScaler if _has_scaler else torch.cuda.amp.GradScaler):
    """torch.cuda.amp.GradScaler: off on a CPU."""

    def __init__(self, init_scale=2.0**16, growth_factor=2.0, backoff_factor=0.5,
                 growth_interval=2000, enabled=True):
        kind = (_kind(),) if _has_scaler else ()
        super().__init__(*kind, init_scale, growth_factor, backoff_factor, growth_interval,
                         enabled and _kind() != "cpu")
''',
    "custom_fwd": '''
def custom_fwd(fwd=None, *, cast_inputs=None):
    """torch.cuda.amp.custom_fwd."""
    kind = __getattr__("accelerator")
    if not hasattr(torch.amp, "custom_fwd"):  # torch before 2.4
        return torch.cuda.amp.custom_fwd(fwd, cast_inputs=cast_inputs)
    if fwd is None:
        return torch.amp.custom_fwd(device_type=kind, cast_inputs=cast_inputs)
    return torch.amp.custom_fwd(fwd, device_type=kind, cast_inputs=cast_inputs)
''',
    "custom_bwd": '''
def custom_bwd(bwd):
    """torch.cuda.amp.custom_bwd."""
    if not hasattr(torch.amp, "custom_bwd"):  # torch before 2.4
        return torch.cuda.amp.custom_bwd(bwd)
    return torch.amp.custom_bwd(bwd, device_type=__getattr__("accelerator"))
''',
    "amp_definitely_not_available": '''
def amp_definitely_not_available():
    """Whether mixed precision cannot work."""
    return _kind() == "cpu"
''',
    "stream": '''
class stream:  # noqa: N801
    """Work inside goes to this stream; None changes nothing."""

    def __init__(self, stream):
        self._inner = None if stream is None or _module() is None else _module().stream(stream)

    def __enter__(self):
        return self._inner.__enter__() if self._inner is not None else None

    def __exit__(self, *error):
        return self._inner.__exit__(*error) if self._inner is not None else None
''',
    "device_context": '''
class device_context:  # noqa: N801
    """The device in use inside a block; None and negative indices change nothing."""

    def __init__(self, where):
        where = where.device if isinstance(where, torch.Tensor) else where
        index = where if where is None or isinstance(where, int) else torch.device(where).index
        is_one = _module() is not None and index is not None and index >= 0
        self._inner = _module().device(index) if is_one else None

    def __enter__(self):
        return self._inner.__enter__() if self._inner is not None else None

    def __exit__(self, *error):
        return self._inner.__exit__(*error) if self._inner is not None else None
''',
    "Stream": '''
def Stream(*args, **kwargs):  # noqa: N802
    """A queue of work on the device."""
    return getattr(_module() or torch, "Stream")(*args, **kwargs)
''',
    "Event": '''
def Event(*args, **kwargs):  # noqa: N802
    """A mark in a stream."""
    return getattr(_module() or torch, "Event")(*args, **kwargs)
''',
}

AUTOCAST = {
    # name: parameters, and the function before torch 2.4
    "is_autocast_enabled": ("", "is_autocast_enabled"),
    "set_autocast_enabled": ("enabled", "set_autocast_enabled"),
    "get_autocast_dtype": ("", "get_autocast_gpu_dtype"),
    "set_autocast_dtype": ("dtype", "set_autocast_gpu_dtype"),
}
"""Functions for the state of autocast, which were for CUDA alone."""


def autocast_state(name: str) -> str:
    """Return the text of a function for the state of autocast."""
    parameters, before = AUTOCAST[name]
    given = f", {parameters}" if parameters else ""
    return (
        f"def {name}({parameters}):\n"
        f'    """torch.{before}, as it was for CUDA."""\n'
        '    if hasattr(torch, "get_autocast_dtype"):  # torch 2.4\n'
        f'        return torch.{name}(__getattr__("accelerator"){given})\n'
        f"    return torch.{before}({parameters})\n"
    )


def tensor_type(name: str) -> str:
    """Return the text of a function that creates tensors, such as FloatTensor."""
    return (
        f"def {name}(*size_or_data):  # noqa: N802\n"
        f'    """A tensor of torch.{TYPES[name]} on the device, of a size or from data."""\n'
        f"    where = {{'device': _kind(), 'dtype': torch.{TYPES[name]}}}\n"
        "    if size_or_data and not isinstance(size_or_data[0], (int, torch.Size)):\n"
        "        return torch.as_tensor(size_or_data[0]).to(**where)\n"
        "    return torch.empty(*size_or_data, **where)\n"
    )
