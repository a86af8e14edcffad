"""What nodes have and gangs ask for. Frozen values: no I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, NewType

from karez.core.units import MILLI, parse_bytes, show_bytes, show_devices

NodeId = NewType("NodeId", str)
"""The host label of a node; it outlives the engine's own id when a host rejoins."""

MOST_DEVICES = 1024
"""Devices of one worker, cores included: no node has more."""

FORBID: dict[str, Any] = {"extra": "forbid"}
"""Wire types refuse unknown keys."""


class DeviceKind(StrEnum):
    """What a device is."""

    NPU = "npu"
    GPU = "gpu"
    CPU = "cpu"
    DPU = "dpu"
    MEMORY = "memory"
    STORAGE = "storage"


class Health(StrEnum):
    """How far a device can be trusted with new work."""

    HEALTHY = "healthy"
    SUB_HEALTHY = "sub-healthy"
    PRE_SEPARATED = "pre-separated"
    SEPARATED = "separated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device of a node."""

    kind: DeviceKind
    index: int
    model: str = ""
    milli: int = MILLI
    memory_bytes: int = 0
    health: Health = Health.HEALTHY


class NodeState(StrEnum):
    """Whether a node takes work."""

    READY = "ready"
    CORDONED = "cordoned"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One host of the pool: Site > Cluster > Supernode > Node > Device."""

    id: NodeId
    address: str
    engine_id: str = ""
    site: str = "site-1"
    cluster: str = "cluster-1"
    supernode: str = ""
    devices: tuple[Device, ...] = ()
    memory_bytes: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    state: NodeState = NodeState.READY
    seen_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one worker needs: an amount of one kind of device, and the host memory beside it.

    `speed` is the work it gets done per second, relative to the other alternatives.
    """

    __pydantic_config__: ClassVar[Any] = FORBID

    kind: DeviceKind = DeviceKind.CPU
    milli: int = MILLI
    memory_bytes: int = 0
    speed: float = 1.0

    def __post_init__(self) -> None:
        if self.milli < 1:
            raise ValueError(f"a worker needs some of a device, got {self.milli / MILLI:g}")
        if self.milli > MOST_DEVICES * MILLI:
            raise ValueError(f"{self.milli / MILLI:g} devices are more than any node has")
        if self.milli > MILLI and self.milli % MILLI:
            raise ValueError(
                f"{self.milli / MILLI:g} {self.kind} is neither a fraction nor whole devices"
            )
        if self.memory_bytes < 0 or self.speed <= 0:
            raise ValueError(f"memory cannot be negative and speed must be positive: {self.show()}")

    def show(self) -> str:
        """In words, for reasons and tables."""
        memory = f" + {show_bytes(self.memory_bytes)}" if self.memory_bytes else ""
        return f"{show_devices(self.milli)} {self.kind}{memory}"


def parse_need(text: str) -> Need:
    """`cpu=2,memory=4GiB,speed=0.5` as one alternative.

    Raises:
        ValueError: Unknown word, no device, or two devices.
    """
    fields: dict[str, str] = {}
    for part in text.split(","):
        key, sep, value = part.partition("=")
        if not sep:
            raise ValueError(f"{part!r} should read like cpu=2 or memory=4GiB")
        fields[key.strip()] = value.strip()
    return need_from(fields)


def need_from(fields: Mapping[str, str | float | int]) -> Need:
    """One alternative from a TOML table such as `{ npu = 1, memory = "32GiB" }`.

    Raises:
        ValueError: Unknown word, no device, or two devices.
    """
    kinds = [kind for kind in DeviceKind if kind.value in fields and kind != DeviceKind.MEMORY]
    unknown = sorted(set(fields) - {*kinds, "memory", "speed"})
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no device kind; say npu, gpu, cpu, memory or speed")
    if len(kinds) != 1:
        raise ValueError("name exactly one device kind for each alternative, such as cpu=1")
    return Need(
        kind=kinds[0],
        milli=round(float(fields[kinds[0].value]) * MILLI),
        memory_bytes=parse_bytes(_whole(fields.get("memory", 0))),
        speed=float(fields.get("speed", 1.0)),
    )


def _whole(value: str | float) -> str | int:
    return value if isinstance(value, str) else int(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one worker holds: thousandths of numbered devices of one node."""

    node: NodeId
    kind: DeviceKind
    devices: tuple[tuple[int, int], ...]
    """Pairs of (device index, thousandths)."""
    memory_bytes: int = 0

    @property
    def milli(self) -> int:
        """All thousandths together."""
        return sum(milli for _, milli in self.devices)

    @property
    def indices(self) -> tuple[int, ...]:
        """The devices' indices on their node."""
        return tuple(index for index, _ in self.devices)
