"""The device that this process was granted: the one module of karez that asks torch for it.

It speaks to torch.accelerator and to the device module of torch, which name no vendor; a backend
such as torch_npu is loaded by its entry point when torch is imported.
"""

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from karez.core import environment
from karez.core.errors import DeviceLost, DeviceMemoryFull, DeviceUnavailable
from karez.core.units import MILLI, show_bytes
from karez.runtime.process_environment import read

CPU = torch.device("cpu")
TYPES: Mapping[str, str] = {"npu": "npu", "gpu": "cuda"}
"""Kind of device -> its type in torch."""
COLLECTIVES: Mapping[str, str] = {"npu": "hccl", "cuda": "nccl"}
"""Type in torch -> backend of collectives between devices of the type."""
_VISIBLE = {"npu": "ASCEND_RT_VISIBLE_DEVICES", "gpu": "CUDA_VISIBLE_DEVICES"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """Memory of one device, in bytes."""

    free: int
    """What this process may still allocate."""
    total: int
    allocated: int
    """What its tensors hold."""


def granted_devices() -> tuple[torch.device, ...]:
    """Open the devices that this process was granted; the CPU if it was granted no accelerator.

    Outside a cloud it is the accelerator that torch finds, or the CPU.

    Raises:
        DeviceUnavailable: A granted device cannot be opened.
    """
    kind = read(environment.DEVICE)
    if kind in TYPES:
        return _open(kind)
    found = None if kind else torch.accelerator.current_accelerator(check_available=True)
    return (torch.device(found.type, 0),) if found is not None else (CPU,)


def granted_device() -> torch.device:
    """Open the first device that this process was granted; see `granted_devices`."""
    return granted_devices()[0]


def is_emulated(device: torch.device) -> bool:
    """Whether a device is emulated on the CPU."""
    return device.type == "npu" and read(environment.EMUNPU) == "1"


def show_device(device: torch.device) -> str:
    """Describe a device for people: its name, and whether it is emulated."""
    return f"{device}, emulated" if is_emulated(device) else str(device)


def own_collectives(device: torch.device) -> str:
    """Return the backend of collectives between devices of a type; gloo where it has none."""
    return COLLECTIVES.get(device.type, "gloo")


def collectives_for(device: torch.device) -> str:
    """Return the backend of collectives that suits a device: gloo for shares of one device."""
    is_shared = int(read(environment.DEVICE_MILLI) or MILLI) < MILLI
    return "gloo" if is_shared else own_collectives(device)


def random_states(devices: Sequence[torch.device]) -> dict[str, list[torch.Tensor]]:
    """Return the state of each accelerator's random generator, by type."""
    states: dict[str, list[torch.Tensor]] = {}
    for device in devices:
        if device != CPU:
            states.setdefault(device.type, []).append(
                device_module(device).get_rng_state(device.index)
            )
    return states


def restore_random_states(states: Mapping[str, Sequence[torch.Tensor]]) -> None:
    """Restore what `random_states` returned; states of a type that is not here are left out."""
    for kind, of_type in states.items():
        if kind in _open_types():
            for index, state in enumerate(of_type):
                torch.get_device_module(kind).set_rng_state(state, index)


def computing_dtype(device: torch.device) -> torch.dtype:
    """Return the type that a device trains in: bfloat16, float16 where it lacks that, or float32.

    A CPU counts as computing in bfloat16 only if it has instructions for it.
    """
    if device != CPU:
        return torch.bfloat16 if device_module(device).is_bf16_supported() else torch.float16
    capabilities = torch.cpu.get_capabilities()
    has_bf16 = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if has_bf16 else torch.float32


def device_memory(device: torch.device) -> DeviceMemory | None:
    """Return the memory of a device; None for the CPU, whose memory is the host's."""
    if device == CPU:
        return None
    free, total = torch.accelerator.get_memory_info(device)
    return DeviceMemory(
        free=free,
        total=total,
        allocated=torch.accelerator.memory_allocated(device),
    )


def memory_full(error: torch.OutOfMemoryError, device: torch.device) -> DeviceMemoryFull:
    """Convert torch's error, of which it takes the size that was asked for."""
    memory = device_memory(device)
    asked = re.search(r"allocate ([\d.]+ \w+)", str(error))
    return DeviceMemoryFull(
        device=str(device),
        wanted=asked[1] if asked else "more",
        free=show_bytes(memory.free) if memory else "0 B",
        total=show_bytes(memory.total) if memory else "0 B",
    )


_PROGRAM_ERRORS = ("device-side assert", "illegal memory access", "misaligned address")
"""Parts of CUDA's messages for cudaErrorAssert, cudaErrorIllegalAddress and
cudaErrorMisalignedAddress, after which a process must be started again."""


def raise_if_lost(device: torch.device, error: RuntimeError) -> None:
    """Raise DeviceLost from an error if the device does not compute any more.

    An error of the program's own, such as an index out of range, can make a device useless to its
    process too: such are left as they are.
    """
    if device == CPU or any(sign in str(error) for sign in _PROGRAM_ERRORS):
        return
    try:
        torch.ones(1, device=device).add_(1).item()
    except RuntimeError:
        first = str(error).partition("\n")[0].rstrip(".")
        raise DeviceLost(device=str(device), problem=first) from error


def _open(kind: str) -> tuple[torch.device, ...]:
    type_, count = TYPES[kind], len(list(filter(None, read(_VISIBLE[kind]).split(",")))) or 1
    problem, fix = _obstacle(kind, count)
    if problem:
        raise DeviceUnavailable(device=kind, problem=problem, fix=fix)
    devices = tuple(torch.device(type_, index) for index in range(count))
    try:
        for device in devices:
            torch.empty(1, device=device)
    except (RuntimeError, OSError) as error:
        first = str(error).partition("\n")[0]
        raise DeviceUnavailable(device=kind, problem=first, fix=_ADVICE[kind]) from error
    milli = int(read(environment.DEVICE_MILLI) or MILLI)
    if milli < MILLI:
        for device in devices:
            device_module(device).set_per_process_memory_fraction(milli / MILLI, device.index)
    torch.accelerator.set_device_index(0)
    return devices


_ADVICE = {
    "npu": "`karez doctor` on that node checks the driver, CANN, torch_npu and permissions.",
    "gpu": "`karez doctor` on that node checks the driver and this torch's CUDA version.",
}


def _obstacle(kind: str, count: int) -> tuple[str, str]:
    """Why a granted kind cannot be used at all, and what to do; empty if nothing shows so far."""
    type_ = TYPES[kind]
    if kind == "npu" and not hasattr(torch, "npu"):
        found = importlib.util.find_spec("torch_npu") is not None
        problem = "torch_npu did not load" if found else "torch_npu is not installed"
        return problem, f"`karez migrate versions` names the one for torch {torch.__version__}."
    if kind == "gpu" and torch.version.cuda is None and torch.version.hip is None:
        problem = f"torch {torch.__version__} was built without CUDA"
        return problem, "Install torch 2.13.0 from a CUDA index on that node."
    module = torch.get_device_module(type_)
    if not module.is_available():
        return "the driver shows no device", _ADVICE[kind]
    seen = int(module.device_count())
    if seen < count:
        return f"{count} were granted and the driver shows {seen}", _ADVICE[kind]
    if count > 1 and is_emulated(torch.device(type_)):
        problem = f"{count} were granted, and a process can use one emulated device"
        return problem, "Ask for one per worker: --each npu=1, with more --workers."
    return "", ""


def _open_types() -> set[str]:
    found = torch.accelerator.current_accelerator(check_available=True)
    return {found.type} if found is not None else set()


def device_module(device: torch.device) -> Any:
    """Return the module of a device's type, such as `torch.npu`, for its streams and events."""
    return torch.get_device_module(device)
