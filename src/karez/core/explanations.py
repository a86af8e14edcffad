"""Explanations of waiting workloads: reasons, estimates, suggested changes, what-if results."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from karez.core.devices import DeviceKind
from karez.core.gangs import GangSpec, Topology
from karez.core.nodes import Node, NodeId
from karez.core.priorities import check_priority
from karez.core.validation import FORBID
from karez.core.workloads import State, WorkloadId

MAX_NEW_NODES = 12_500
"""The design goes to 100,000 devices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfitReason:
    """Why one alternative of a request does not fit the pool."""

    asked: str
    """The alternative, in words."""
    workers: int
    """Workers that fit at once."""
    needed: int
    """Fewest workers that the workload starts with."""
    nodes: Mapping[str, int] = field(default_factory=dict)
    """Reason -> number of nodes that it rules out."""
    devices_free: float = 0.0
    devices: float = 0.0
    """Devices of the kind, on nodes that take work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaLine:
    """A project's quota of one kind, in devices."""

    project: str
    kind: DeviceKind
    limit: float
    """Devices the project may hold now: its cap, or its guarantee plus what its cohort lends."""
    held: float
    asked: float
    guarantee: float | None = None
    """Guarantee in its cohort; None outside a cohort."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceHolder:
    """A workload that holds devices of a requested kind."""

    id: WorkloadId
    project: str
    kind: DeviceKind
    devices: float
    since: float
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestedChange:
    """A change that would start the workload now; fields left out do not change."""

    what: str
    """The change in words, with the command where there is one."""
    priority: int | None = None
    """New priority of the workload."""
    quota: Mapping[DeviceKind, int] = field(default_factory=dict)
    """New caps of the workload's project."""
    guarantee: Mapping[DeviceKind, int] = field(default_factory=dict)
    """New guarantees of the workload's project in its cohort."""
    spend: bool = False
    """Whether the workload's project may spend more."""
    workers: int | None = None
    kind: DeviceKind | None = None
    topology: Topology | None = None
    stop: tuple[WorkloadId, ...] = ()
    anywhere: bool = False
    """Whether the workload gives up its node affinity."""
    uncordon: tuple[NodeId, ...] = ()
    unplan: tuple[NodeId, ...] = ()
    """Nodes whose maintenance is cancelled."""
    add: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """When a workload will probably start, in UTC epoch seconds.

    An unknown end of a workload is estimated from how long the workload has run. It goes on for
    less than a quarter of that time with probability 1/5, for more than four times as long with
    probability 1/5, and for the same time in the median.

    Source of the rule: J. R. Gott, "Implications of the Copernican principle for our future
    prospects", Nature 363, 1993.
    """

    early: float
    middle: float
    late: float | None
    """None: a workload that must end first may run for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Answer of `karez why`."""

    id: WorkloadId
    name: str
    state: State
    reason: str
    ahead: int = 0
    """Number of workloads ahead in the queue."""
    hurdles: tuple[UnfitReason, ...] = ()
    quota: tuple[QuotaLine, ...] = ()
    holders: tuple[ResourceHolder, ...] = ()
    starts: Estimate | None = None
    changes: tuple[SuggestedChange, ...] = ()
    """Changes that would each start the workload now; the smallest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """A hypothetical change of the cloud; nothing is carried out."""

    __pydantic_config__: ClassVar[Any] = FORBID

    remove: tuple[NodeId, ...] = ()
    add: int = 0
    like: NodeId | None = None
    """Node that the new nodes are copies of."""
    quota: Mapping[str, Mapping[DeviceKind, int]] = field(default_factory=dict)
    """Project -> new limits of the project."""
    submit: GangSpec | None = None
    """Gang of a hypothetical workload."""
    project: str = "default"
    """Project of the hypothetical workload."""
    priority: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.add <= MAX_NEW_NODES:
            raise ValueError(f"add between 0 and {MAX_NEW_NODES} nodes, not {self.add}")
        check_priority(self.priority)
        if self.like == "" or (self.add and not self.like):
            raise ValueError("say which node the new ones are like")


@dataclass(frozen=True, slots=True, kw_only=True)
class RelocatedWorkload:
    """One workload that would be moved to other nodes."""

    id: WorkloadId
    project: str
    leaves: tuple[NodeId, ...]
    takes: tuple[NodeId, ...]
    lost_device_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DefragResult:
    """Answer of `karez pool defragment`: workloads to move, nodes freed, cost."""

    moves: tuple[RelocatedWorkload, ...]
    freed: tuple[NodeId, ...]
    """Nodes that would be empty."""
    lost_device_s: float
    carried_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadDiff:
    """Difference of one workload between now and the hypothetical cloud."""

    id: WorkloadId
    project: str
    before: str
    after: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIfResult:
    """Answer of `karez what-if`: only the workloads that would differ."""

    effects: tuple[WorkloadDiff, ...]
    waiting_before: int
    waiting_after: int
