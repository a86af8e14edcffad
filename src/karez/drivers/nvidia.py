"""NVIDIA GPUs and MIG instances, and the links between them, through NVML."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from karez.core.devices import Device, DeviceKind
from karez.drivers.links import linked_groups

VISIBLE = "NVIDIA_VISIBLE_DEVICES"
"""Set by the device plug-in of a container. Only UUIDs count: NVML sees what the container sees,
counted from 0, and containers that get their GPUs by CDI have `void` here."""
MIG_ENABLED = 1


def nvidia_devices() -> Sequence[Device]:
    """GPUs, and of a GPU that is divided its MIG instances; empty where there is no driver."""
    nvml = _nvml()
    if nvml is None:
        return []
    allowed = os.environ.get(VISIBLE, "all")  # noqa: TID251 - set by the device plug-in
    try:
        return list(read_devices(nvml, allowed))
    finally:
        nvml.nvmlShutdown()


def nvlink_groups() -> str:
    """Indices of the GPUs that NVLink connects with one another, such as `0-3,4-7`; else empty."""
    nvml = _nvml()
    if nvml is None:
        return ""
    try:
        return linked_groups(nvml.nvmlDeviceGetCount(), _nvlink_pairs(nvml))
    except nvml.NVMLError:
        return ""
    finally:
        nvml.nvmlShutdown()


def _nvml() -> Any:
    """The library, ready to be asked; None where it is not installed or there is no driver."""
    try:
        import pynvml  # noqa: PLC0415 - absent on hosts without it
    except ModuleNotFoundError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def read_devices(nvml: Any, allowed: str) -> Iterator[Device]:
    """Yield the devices that NVML tells of; `allowed` is a value of NVIDIA_VISIBLE_DEVICES."""
    names = [name.strip() for name in allowed.split(",")]
    wanted = [name for name in names if name.startswith(("GPU-", "MIG-"))]
    count = 0
    for number in range(nvml.nvmlDeviceGetCount()):
        gpu = nvml.nvmlDeviceGetHandleByIndex(number)
        instances = list(_mig_instances(nvml, gpu))
        for handle in instances or [gpu]:
            uuids = {str(nvml.nvmlDeviceGetUUID(one)) for one in (gpu, handle)}
            if wanted and not uuids & set(wanted):
                continue
            name = str(nvml.nvmlDeviceGetUUID(handle)) if instances else str(number)
            yield Device(
                kind=DeviceKind.GPU,
                index=count,
                model=str(nvml.nvmlDeviceGetName(handle)),
                memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
                visible_as="" if name == str(count) else name,
            )
            count += 1


def _mig_instances(nvml: Any, gpu: Any) -> Iterator[Any]:
    """Handles of a GPU's MIG instances; none if it is not divided."""
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(gpu)
        slots = nvml.nvmlDeviceGetMaxMigDeviceCount(gpu) if current == MIG_ENABLED else 0
    except nvml.NVMLError:  # a GPU that knows no MIG
        return
    for slot in range(slots):
        try:
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, slot)
        except nvml.NVMLError:  # an empty slot
            continue


def _nvlink_pairs(nvml: Any) -> Iterator[tuple[int, int]]:
    handles = [nvml.nvmlDeviceGetHandleByIndex(n) for n in range(nvml.nvmlDeviceGetCount())]
    for one, first in enumerate(handles):
        for other, second in enumerate(handles[:one]):
            answer = nvml.nvmlDeviceGetP2PStatus(first, second, nvml.NVML_P2P_CAPS_INDEX_NVLINK)
            if answer == nvml.NVML_P2P_STATUS_OK:
                yield other, one
