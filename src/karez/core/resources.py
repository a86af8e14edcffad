"""What nodes have and gangs ask for. Frozen values: no I/O, no clock."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar, Final, NewType

from karez.core.units import MILLI, parse_bytes, show_bytes, show_devices, show_seconds

NodeId = NewType("NodeId", str)
"""The host label of a node; it outlives the engine's own id when a host rejoins."""

MAX_DEVICES = 1024
"""Devices of one worker, cores included: no node has more."""

MAX_BYTES = 1 << 50
"""A pebibyte of memory or storage on one node: no node has more."""
MAX_SPEED = 1e6
"""Beyond this a speed is a slip of the pen."""

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


NUMBERED: Final = (DeviceKind.NPU, DeviceKind.GPU, DeviceKind.CPU)
"""Kinds whose devices are granted by number."""
IN_BYTES: Final = (DeviceKind.MEMORY, DeviceKind.STORAGE)
"""Kinds that are counted in bytes; the others in thousandths of a device."""


class NodeState(StrEnum):
    """Whether a node takes work."""

    READY = "ready"
    CORDONED = "cordoned"
    """What runs there goes on."""
    DRAINING = "draining"
    """What runs there is moved away, as far as it lets itself be moved."""
    EVICTED = "evicted"
    """It failed again and again; it rests, is probed and comes back by itself."""
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceWindow:
    """A time in which a node is needed for something else. UTC epoch seconds."""

    __pydantic_config__: ClassVar[Any] = FORBID

    starts_at: float
    ends_at: float
    reason: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.starts_at < self.ends_at < math.inf:
            raise ValueError("a maintenance window must end after it starts")

    def show(self) -> str:
        """How long, and why."""
        why = f" ({self.reason})" if self.reason else ""
        return f"maintenance for {show_seconds(self.ends_at - self.starts_at)}{why}"


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
    limits: Mapping[str, str] = field(default_factory=dict)
    """Resource -> how a grant of it is enforced here, or that it is not and why."""
    state: NodeState = NodeState.READY
    seen_at: float = 0.0
    windows: tuple[MaintenanceWindow, ...] = ()
    """Maintenance to come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOverride:
    """What an operator says of a node, beside what the node says of itself."""

    __pydantic_config__: ClassVar[Any] = FORBID

    site: str = ""
    cluster: str = ""
    supernode: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    health: Mapping[str, Health] = field(default_factory=dict)
    """Device, such as `npu:3`, -> how far it is to be trusted; worse than it says itself."""

    def __post_init__(self) -> None:
        for name in self.health:
            kind, _, index = name.partition(":")
            if kind not in {one.value for one in DeviceKind} or not index.isdigit():
                raise ValueError(f"invalid device {name!r}; write npu:3")

    def on(self, node: Node) -> Node:
        """The node with this said of it."""
        devices = tuple(
            replace(device, health=max(device.health, said, key=_LEVELS.index))
            if (said := self.health.get(f"{device.kind}:{device.index}"))
            else device
            for device in node.devices
        )
        return replace(
            node,
            site=self.site or node.site,
            cluster=self.cluster or node.cluster,
            supernode=self.supernode or node.supernode,
            labels={**node.labels, **self.labels},
            devices=devices,
        )


_LEVELS = list(Health)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRequest:
    """What one worker needs: an amount of one kind, and what must come with it from the same node.

    `speed` is the work it gets done per second, relative to the other alternatives.
    """

    __pydantic_config__: ClassVar[Any] = FORBID

    kind: DeviceKind = DeviceKind.CPU
    milli: int = MILLI
    """Of the kind; 0 where that is memory or storage."""
    memory_bytes: int = 0
    storage_bytes: int = 0
    cpu_milli: int = 0
    """Cores beside a device that is none."""
    dpu_milli: int = 0
    """Thousandths of a network card, beside a device that is none."""
    models: tuple[str, ...] = ()
    """Any of these will do; empty: every model."""
    speed: float = 1.0

    def __post_init__(self) -> None:
        amounts = (self.memory_bytes, self.storage_bytes, self.cpu_milli, self.dpu_milli)
        if min(amounts) < 0 or not 0 < self.speed <= MAX_SPEED:
            raise ValueError(
                f"no amount can be negative, and speed is above 0 and up to {MAX_SPEED:g}: "
                f"{self.show()}"
            )
        if max(self.memory_bytes, self.storage_bytes) > MAX_BYTES:
            raise ValueError(f"{self.show()}: no node has so many bytes")
        if max(self.cpu_milli, self.dpu_milli) > MAX_DEVICES * MILLI:
            raise ValueError(f"{self.show()}: no node has so many")
        if self.kind in IN_BYTES:
            self._check_bytes()
        else:
            self._check_devices()

    def _check_bytes(self) -> None:
        if self.milli or self.cpu_milli or self.dpu_milli or self.models:
            raise ValueError(f"{self.kind} is asked for in bytes and alone: milli = 0")
        if not (self.memory_bytes if self.kind == DeviceKind.MEMORY else self.storage_bytes):
            raise ValueError(f"a worker that needs {self.kind} needs some bytes of it")

    def _check_devices(self) -> None:
        if self.milli < 1:
            raise ValueError(f"a worker needs some of a device, got {self.milli / MILLI:g}")
        if self.milli > MAX_DEVICES * MILLI:
            raise ValueError(f"{self.milli / MILLI:g} devices are more than any node has")
        if self.kind != DeviceKind.DPU and self.milli > MILLI and self.milli % MILLI:
            raise ValueError(
                f"{self.milli / MILLI:g} {self.kind} is neither a fraction nor whole devices"
            )
        if (self.kind == DeviceKind.CPU and self.cpu_milli) or (
            self.kind == DeviceKind.DPU and self.dpu_milli
        ):
            raise ValueError(f"{self.kind} is asked for twice")

    @property
    def amounts(self) -> Mapping[DeviceKind, int]:
        """What one worker takes of each kind, in the kind's unit."""
        found = {
            DeviceKind.CPU: self.cpu_milli,
            DeviceKind.DPU: self.dpu_milli,
            DeviceKind.MEMORY: self.memory_bytes,
            DeviceKind.STORAGE: self.storage_bytes,
        }
        if self.kind not in IN_BYTES:
            found[self.kind] = self.milli
        return {kind: amount for kind, amount in found.items() if amount}

    def show(self) -> str:
        """In words, for reasons and tables."""
        model = f" {'|'.join(self.models)}" if self.models else ""
        parts = [] if self.kind in IN_BYTES else [f"{show_devices(self.milli)} {self.kind}{model}"]
        if self.cpu_milli:
            parts.append(f"{show_devices(self.cpu_milli)} cpu")
        if self.memory_bytes:
            parts.append(show_bytes(self.memory_bytes))
        if self.dpu_milli:
            parts.append(f"{show_devices(self.dpu_milli)} dpu")
        if self.storage_bytes:
            parts.append(f"{show_bytes(self.storage_bytes)} storage")
        return " + ".join(parts)


def parse_resource_request(text: str) -> ResourceRequest:
    """`npu=1,cpu=8,memory=4GiB,model=910B|910C,speed=0.5` as one alternative.

    Raises:
        ValueError: Unknown word, no device, or two devices.
    """
    fields: dict[str, str] = {}
    for part in text.split(","):
        key, sep, value = part.partition("=")
        if not sep:
            raise ValueError(f"{part!r} should read like cpu=2 or memory=4GiB")
        if key.strip() in fields:
            raise ValueError(f"{key.strip()!r} is there twice in {text!r}")
        fields[key.strip()] = value.strip()
    return resource_request_from(fields)


def resource_request_from(fields: Mapping[str, str | float | int]) -> ResourceRequest:
    """One alternative from a TOML table such as `{ npu = 1, cpu = 8, memory = "32GiB" }`.

    The device is the npu or gpu; without either, the cpu, the dpu, the memory or the storage, in
    this order. All else comes with it from the same node.

    Raises:
        ValueError: Unknown word, no device, or two devices.
    """
    words = {kind.value for kind in DeviceKind}
    unknown = sorted(set(fields) - {*words, "speed", "model"})
    if unknown:
        raise ValueError(
            f"invalid device kind {unknown[0]!r}; say {', '.join(kinds_in_order())}, model or speed"
        )
    named = [kind for kind in _FIRST if kind.value in fields]
    if not named:
        raise ValueError("name a device in each alternative, such as cpu=1")
    if DeviceKind.NPU in named and DeviceKind.GPU in named:
        raise ValueError("npu and gpu in one alternative; give two alternatives if either will do")
    kind = named[0]
    milli = {k: _milli(fields, k) for k in (DeviceKind.CPU, DeviceKind.DPU) if k != kind}
    memory = parse_bytes(_whole(fields.get("memory", 0)))
    storage = parse_bytes(_whole(fields.get("storage", 0)))
    models = str(fields["model"]).split("|") if "model" in fields else []
    return ResourceRequest(
        kind=kind,
        milli=0 if kind in IN_BYTES else _milli(fields, kind),
        memory_bytes=memory,
        storage_bytes=storage,
        cpu_milli=milli.get(DeviceKind.CPU, 0),
        dpu_milli=milli.get(DeviceKind.DPU, 0),
        models=tuple(name.strip() for name in models if name.strip()),
        speed=_number(fields.get("speed", 1.0), "speed"),
    )


_FIRST: Final = (
    DeviceKind.NPU,
    DeviceKind.GPU,
    DeviceKind.CPU,
    DeviceKind.DPU,
    DeviceKind.MEMORY,
    DeviceKind.STORAGE,
)


def kinds_in_order() -> list[str]:
    """The kinds as people write them, accelerators first."""
    return [kind.value for kind in _FIRST]


def _milli(fields: Mapping[str, str | float | int], kind: DeviceKind) -> int:
    return round(_number(fields.get(kind.value, 0), "amount", f" of {kind}") * MILLI)


def _number(value: str | float, what: str, of: str = "") -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"invalid {what} {value!r}{of}: not a finite number")
    return number


def _whole(value: str | float) -> str | int:
    return value if isinstance(value, str) else int(value)


def parse_amount(kind: DeviceKind, text: str) -> int:
    """`8` devices as thousandths, or `64GiB` of memory or storage as bytes.

    Raises:
        ValueError: Not an amount of that kind.
    """
    if kind in IN_BYTES:
        return parse_bytes(text)
    return round(_number(text, "amount", f" of {kind}") * MILLI)


def show_amount(kind: DeviceKind, amount: int) -> str:
    """An amount in its kind's unit, for people: `8`, `64.0 GiB`."""
    return show_bytes(amount) if kind in IN_BYTES else show_devices(amount)


def write_amount(kind: DeviceKind, amount: int) -> str:
    """An amount as `parse_amount` reads it, exactly."""
    return f"{amount}B" if kind in IN_BYTES else show_devices(amount)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one worker holds of one node."""

    node: NodeId
    kind: DeviceKind
    devices: tuple[tuple[int, int], ...]
    """Pairs of (device index, thousandths), of the kind if its devices have numbers."""
    memory_bytes: int = 0
    cores: tuple[tuple[int, int], ...] = ()
    """Cores beside a device that is none: (index, thousandths)."""
    dpu_milli: int = 0
    storage_bytes: int = 0
    role: str = ""
    """Which role of its gang holds it; empty: a worker."""

    @property
    def milli(self) -> int:
        """All thousandths of numbered devices together."""
        return sum(milli for _, milli in self.devices)

    @property
    def amounts(self) -> Mapping[DeviceKind, int]:
        """What is held of each kind, in the kind's unit."""
        found = {
            DeviceKind.CPU: sum(milli for _, milli in self.cores),
            DeviceKind.DPU: self.dpu_milli,
            DeviceKind.MEMORY: self.memory_bytes,
            DeviceKind.STORAGE: self.storage_bytes,
        }
        if self.devices:
            found[self.kind] = self.milli
        return {kind: amount for kind, amount in found.items() if amount}

    def meets(self, need: ResourceRequest) -> bool:
        """Whether this is what a need asks for, its model left aside."""
        return self.kind == need.kind and dict(self.amounts) == dict(need.amounts)

    @property
    def indices(self) -> tuple[int, ...]:
        """The devices' indices on their node."""
        return tuple(index for index, _ in self.devices)
