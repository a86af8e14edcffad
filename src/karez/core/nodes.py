"""Nodes of the pool, their maintenance windows and their overrides by operators."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar, Final, NewType

from karez.core.devices import Device, DeviceKind, Health
from karez.core.units import show_seconds
from karez.core.validation import FORBID

NodeId = NewType("NodeId", str)
"""The host label of a node; it outlives the engine's own id when a host rejoins."""

_LEVELS: Final = list(Health)


class NodeState(StrEnum):
    """Whether a node takes work."""

    READY = "ready"
    CORDONED = "cordoned"
    """Its running workloads go on; nothing new is placed on it."""
    DRAINING = "draining"
    """Its running workloads are moved away where they can be moved."""
    EVICTED = "evicted"
    """It failed repeatedly: it takes no work, is probed, and returns to READY by itself."""
    DEGRADED = "degraded"
    """It says that a part of it does not work: what runs there goes on, nothing new is placed."""
    LOST = "lost"


class Isolation(StrEnum):
    """What keeps the processes of jobs apart from the node, and from those of other projects."""

    USERS = "users"
    """Each project has a user of its own, and each job its own view of processes and files."""
    NONE = "none"
    """All run as the user of the node agent, who can read all of them: for one project."""


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
        """Describe the window for people: its duration and reason."""
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
    """Resource -> how the node enforces a grant of it, or that it does not, and why."""
    problems: tuple[str, ...] = ()
    """Parts of it that do not work now, as it says itself."""
    isolation: Isolation = Isolation.NONE
    state: NodeState = NodeState.READY
    seen_at: float = 0.0
    windows: tuple[MaintenanceWindow, ...] = ()
    """Planned maintenance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOverride:
    """An operator's corrections of what a node reports about itself."""

    __pydantic_config__: ClassVar[Any] = FORBID

    site: str = ""
    cluster: str = ""
    supernode: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    health: Mapping[str, Health] = field(default_factory=dict)
    """Device, such as `npu:3`, -> its health; the worse of this and the reported one counts."""

    def __post_init__(self) -> None:
        for name in self.health:
            kind, _, index = name.partition(":")
            if kind not in {known.value for known in DeviceKind} or not index.isdigit():
                raise ValueError(f"invalid device {name!r}; write npu:3")

    def on(self, node: Node) -> Node:
        """Return a copy of the node with these corrections applied."""
        devices = tuple(
            replace(device, health=max(device.health, override, key=_LEVELS.index))
            if (override := self.health.get(f"{device.kind}:{device.index}"))
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
