"""Probes this host: CPUs, memory, Ascend devices, network cards, the disk; `nvidia` has GPUs."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import psutil

from karez.core.containers import LABEL
from karez.core.devices import EMULATED, Device, DeviceKind, Health
from karez.core.nodes import Node, NodeId
from karez.drivers.cgroups import cpu_limit, memory_limit
from karez.drivers.container_programs import container_program
from karez.drivers.links import parse_npu_topology
from karez.drivers.nvidia import nvidia_devices, nvlink_groups

LIMITS = {
    "npu": "only the granted devices are visible",
    "gpu": "only the granted devices are visible",
    "cpu": "processes run on the granted cores only",
    "memory": "checked every second; a process that takes more than it was granted is ended",
    "storage": "checked every second; a process that writes more than it was granted is ended",
    "dpu": "not enforced: a share of a card's bandwidth is counted, not held back",
}
"""How grants are enforced on a node, or not; see karez.drivers.steward.resource_limits."""


def probe_node(
    node: NodeId, address: str, *, cpus: int = 0, npus: int = 0, folder: str = ""
) -> Node:
    """Probe this host as a node.

    Args:
        node: Name of the node.
        address: Its address.
        cpus: Number of CPUs that it offers; 0 is all.
        npus: Number of NPUs that it emulates; it must have no real ones.
        folder: The work folder: its disk is what the node offers as storage.
    """
    disks = disk_devices(folder) if folder else ()
    devices = [
        *cpu_devices(limit=cpus),
        *accelerators(npus),
        *network_devices(),
        *disks,
    ]
    return Node(
        id=node,
        address=address,
        supernode=node,
        devices=tuple(devices),
        memory_bytes=memory_bytes(),
        limits=LIMITS,
        labels={**({} if npus else link_labels()), **container_labels()},
    )


def container_labels() -> Mapping[str, str]:
    """The label that says by which program this host runs container images, if any."""
    program = container_program()
    return {} if program is None else {LABEL: program.value}


@cache
def link_labels() -> Mapping[str, str]:
    """Labels that say which accelerators fast links connect, as far as the vendors' tools tell.

    Such as `nvlink` or `hccs` with `0-3,4-7`. Cached: links do not change while a host is up.
    """
    found = {"nvlink": nvlink_groups(), "hccs": hccs_groups()}
    return {name: groups for name, groups in found.items() if groups}


def memory_bytes() -> int:
    """The memory of this host, or what a control group leaves of it."""
    total = int(psutil.virtual_memory().total)
    return min(total, memory_limit() or total)


def cpu_devices(*, limit: int = 0) -> Sequence[Device]:
    """One device per logical CPU this process may run on, within its control group's CPU time.

    `limit` is the number to offer; 0 is all.
    """
    usable = sorted(os.sched_getaffinity(0))
    quota = cpu_limit()
    most = min(limit or len(usable), max(1, int(quota)) if quota else len(usable))
    chosen = usable[:most]
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


def ascend_devices() -> Sequence[Device]:
    """Ascend NPUs through `npu-smi info`, else by their device files."""
    return parse_npu_smi(_npu_smi("info")) if shutil.which("npu-smi") else davinci_devices()


def hccs_groups() -> str:
    """Indices of the NPUs that HCCS connects with one another, such as `0-3,4-7`; else empty."""
    return parse_npu_topology(_npu_smi("info", "-t", "topo"))


def _npu_smi(*arguments: str) -> str:
    """What `npu-smi` prints; empty where it is not installed."""
    program = shutil.which("npu-smi")
    if program is None:
        return ""
    done = subprocess.run(  # noqa: S603 - a fixed command
        [program, *arguments], capture_output=True, text=True, timeout=20, check=False
    )
    return done.stdout


def accelerators(npus: int) -> Sequence[Device]:
    """The GPUs and NPUs that this host offers; `npus` is how many it emulates."""
    return [*nvidia_devices(), *(emulated_npus(npus) if npus else ascend_devices())]


def emulated_npus(count: int) -> Sequence[Device]:
    """NPUs that this host emulates: each has an even share of the host's memory."""
    share = memory_bytes() // count >> 20 << 20
    return [
        Device(kind=DeviceKind.NPU, index=index, model=EMULATED, memory_bytes=share)
        for index in range(count)
    ]


def davinci_devices(dev: Path = Path("/dev")) -> Sequence[Device]:
    """Ascend NPUs by their device files, where the tool is absent: only their number is known.

    Source: the driver makes /dev/davinci0, /dev/davinci1, ... beside /dev/davinci_manager.
    """
    names = (path.name.removeprefix("davinci") for path in dev.glob("davinci*"))
    return [
        Device(kind=DeviceKind.NPU, index=index)
        for index in sorted(int(name) for name in names if name.isdigit())
    ]


_NPU_NAME = re.compile(r"^\|\s*(\d+)\s+(\S+)\s*\|\s*(\w+)\s*\|")
_NPU_CHIP = re.compile(r"^\|\s*\d+\s*(?:\d+\s*)?\|\s*[0-9A-Fa-f]{4}:[0-9A-Fa-f:.]+\s*\|(.*)\|")


def parse_npu_smi(text: str) -> Sequence[Device]:
    """Parse the table of `npu-smi info`: a line with NPU, name and health, then one per chip.

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


def network_devices(sys: Path = Path("/sys")) -> Sequence[Device]:
    """The network cards of this host: interfaces with hardware below them, bonds and bridges not.

    The model says whether it is a DPU, where its PCI ids are known, and its speed.
    """
    cards: list[Device] = []
    for interface in sorted((sys / "class" / "net").glob("*")):
        card = interface / "device"
        if not card.exists():
            continue  # virtual: the loopback, a bridge, a tunnel
        up = _read(interface / "operstate") in ("up", "unknown")
        cards.append(
            Device(
                kind=DeviceKind.DPU,
                index=len(cards),
                model=_card_model(card, _read(interface / "speed")),
                health=Health.HEALTHY if up else Health.SEPARATED,
            )
        )
    return cards


_CARDS = {
    ("0x15b3", "0xa2d2"): "BlueField",
    ("0x15b3", "0xa2d6"): "BlueField-2",
    ("0x15b3", "0xa2dc"): "BlueField-3",
    ("0x19e5", "0x1822"): "Hi1822",
    ("0x19e5", "0x0222"): "Hi1822",
    ("0x1dd8", "0x1002"): "Pensando DSC",
}
"""PCI (vendor, device) of network cards with processors of their own. Source: pci.ids of the
hwdata project (Mellanox BlueField integrated controllers, Huawei Hi1822 family, AMD Pensando)."""


def _card_model(card: Path, speed: str) -> str:
    ids = (_read(card / "vendor"), _read(card / "device"))
    driver = card / "driver"
    name = _CARDS.get(ids) or (driver.resolve().name if driver.exists() else "network card")
    mbit = int(speed) if speed.isdigit() else 0
    return f"{name} {mbit / 1000:g} Gbit/s" if mbit else name


KEPT_FREE = 0.05
"""Share of a disk that is never offered: ext4's own reserve."""


@cache
def disk_devices(folder: str, sys: Path = Path("/sys")) -> Sequence[Device]:
    """The disk below a folder: its free space at the first call, less a reserve.

    Cached: files that jobs write must not make the disk appear smaller.
    """
    try:
        usage, number = shutil.disk_usage(folder), os.stat(folder).st_dev
    except OSError:
        return ()
    offered = int(usage.free - KEPT_FREE * usage.total)
    if offered <= 0:
        return ()
    block = sys / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}"
    model = _read(block / "device" / "model") or _read(block / ".." / "device" / "model")
    return (
        Device(
            kind=DeviceKind.STORAGE,
            index=0,
            model=model or "disk",
            memory_bytes=offered // 2**30 * 2**30,
        ),
    )


def _read(path: Path) -> str:
    """The text of a small file of the kernel; empty if it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def interface_of(address: str) -> str:
    """The network interface that has an address; `lo` if none has."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in addresses):
            return name
    return "lo"
