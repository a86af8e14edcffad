"""What this host has: CPUs, memory, NVIDIA and Ascend devices."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache

import psutil

from karez.core.resources import Device, DeviceKind, Health, Node, NodeId


def probe_node(node: NodeId, address: str, *, cpus: int = 0) -> Node:
    """This host as a node. `cpus` limits how many CPUs it offers; 0 is all."""
    devices = [*cpu_devices(limit=cpus), *nvidia_devices(), *ascend_devices()]
    return Node(
        id=node,
        address=address,
        supernode=node,
        devices=tuple(devices),
        memory_bytes=psutil.virtual_memory().total,
    )


def cpu_devices(*, limit: int = 0) -> Sequence[Device]:
    """One device per logical CPU this process may run on."""
    usable = sorted(os.sched_getaffinity(0))
    chosen = usable[:limit] if limit else usable
    model = _cpu_model()
    return [Device(kind=DeviceKind.CPU, index=index, model=model) for index in chosen]


@cache
def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            match = re.search(r"model name\s*:\s*(.+)", file.read())
    except OSError:
        return ""
    return match[1].strip() if match else ""


def nvidia_devices() -> Sequence[Device]:
    """NVIDIA GPUs through NVML; empty where there is no driver."""
    try:
        import pynvml  # noqa: PLC0415 - absent on hosts without it
    except ModuleNotFoundError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_nvidia_device(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _nvidia_device(nvml: object, index: int) -> Device:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)  # type: ignore[attr-defined]  # pynvml
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)  # type: ignore[attr-defined]  # pynvml
    name = nvml.nvmlDeviceGetName(handle)  # type: ignore[attr-defined]  # pynvml
    return Device(kind=DeviceKind.GPU, index=index, model=str(name), memory_bytes=int(memory.total))


def ascend_devices() -> Sequence[Device]:
    """Ascend NPUs through `npu-smi info`; empty where it is not installed."""
    program = shutil.which("npu-smi")
    if program is None:
        return []
    done = subprocess.run(  # noqa: S603 - a fixed command
        [program, "info"], capture_output=True, text=True, timeout=20, check=False
    )
    return parse_npu_smi(done.stdout)


_NPU_NAME = re.compile(r"^\|\s*(\d+)\s+(\S+)\s*\|\s*(\w+)\s*\|")
_NPU_CHIP = re.compile(r"^\|\s*\d+\s*(?:\d+\s*)?\|\s*[0-9A-Fa-f]{4}:[0-9A-Fa-f:.]+\s*\|(.*)\|")


def parse_npu_smi(text: str) -> Sequence[Device]:
    """The table of `npu-smi info`: a line with NPU, name and health, then one per chip.

    Memory is the last `used / total` pair of the chip's line, in MiB. Source: the column heads
    that `npu-smi info` prints.
    """
    devices: list[Device] = []
    name, health = "", Health.HEALTHY
    for line in text.splitlines():
        if match := _NPU_CHIP.match(line):
            pairs = re.findall(r"(\d+)\s*/\s*(\d+)", match[1])
            total = int(pairs[-1][1]) * 2**20 if pairs else 0
            devices.append(
                Device(
                    kind=DeviceKind.NPU,
                    index=len(devices),
                    model=name,
                    memory_bytes=total,
                    health=health,
                )
            )
        elif match := _NPU_NAME.match(line):
            name = match[2]
            health = {"OK": Health.HEALTHY, "Warning": Health.SUB_HEALTHY}.get(
                match[3], Health.SEPARATED
            )
    return devices


def interface_of(address: str) -> str:
    """The network interface that has an address; `lo` if none has."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in addresses):
            return name
    return "lo"
