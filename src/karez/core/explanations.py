"""Why a workload waits, when it may start, and the smallest change that would start it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from karez.core.devices import DeviceKind
from karez.core.gangs import GangSpec, Topology
from karez.core.nodes import Node, NodeId
from karez.core.validation import FORBID
from karez.core.workloads import State, WorkloadId

MAX_NEW_NODES = 12_500
"""The design goes to 100,000 devices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfitReason:
    """How far the pool could go along with one alternative."""

    asked: str
    """The alternative, in words."""
    workers: int
    """The most that fit at once."""
    needed: int
    """The fewest that the workload starts with."""
    nodes: Mapping[str, int] = field(default_factory=dict)
    """Reason -> nodes that it rules out."""
    devices_free: float = 0.0
    devices: float = 0.0
    """Of the kind, on nodes that take work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaLine:
    """A project's quota of one kind, in devices."""

    project: str
    kind: DeviceKind
    limit: float
    """What it may hold right now: its cap, or its guarantee and what its cohort lends."""
    held: float
    asked: float
    guarantee: float | None = None
    """In its cohort, if it is in one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceHolder:
    """Who holds devices of a kind that is asked for."""

    id: WorkloadId
    project: str
    kind: DeviceKind
    devices: float
    since: float
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestedChange:
    """Something that would start the workload now; what is left out stays as it is."""

    what: str
    """In words, with the command where there is one."""
    priority: int | None = None
    """Its new priority."""
    quota: Mapping[DeviceKind, int] = field(default_factory=dict)
    """New caps of its project."""
    guarantee: Mapping[DeviceKind, int] = field(default_factory=dict)
    """New guarantees of its project in its cohort."""
    workers: int | None = None
    kind: DeviceKind | None = None
    topology: Topology | None = None
    stop: tuple[WorkloadId, ...] = ()
    anywhere: bool = False
    """It gives up where its workers may stand."""
    uncordon: tuple[NodeId, ...] = ()
    unplan: tuple[NodeId, ...] = ()
    """Nodes whose maintenance is called off."""
    add: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """When a workload will probably start, in UTC epoch seconds.

    An end that nobody knows is taken from how long that workload has run: with nothing else
    known, it goes on for less than a quarter as long again with one chance in five, for more than
    four times as long with one chance in five, and for as long again in the middle.

    Source of the rule: J. R. Gott, "Implications of the Copernican principle for our future
    prospects", Nature 363, 1993.
    """

    early: float
    middle: float
    late: float | None
    """None: some of what must end first may run for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The answer to `karez why`."""

    id: WorkloadId
    name: str
    state: State
    reason: str
    ahead: int = 0
    """How many stand before it in line."""
    hurdles: tuple[UnfitReason, ...] = ()
    quota: tuple[QuotaLine, ...] = ()
    holders: tuple[ResourceHolder, ...] = ()
    starts: Estimate | None = None
    changes: tuple[SuggestedChange, ...] = ()
    """Each by itself would start it now; the smallest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """A change of the cloud to be thought through; nothing is done."""

    __pydantic_config__: ClassVar[Any] = FORBID

    remove: tuple[NodeId, ...] = ()
    add: int = 0
    like: NodeId | None = None
    """New nodes are like this one."""
    quota: Mapping[str, Mapping[DeviceKind, int]] = field(default_factory=dict)
    """Project -> its new limits."""
    submit: GangSpec | None = None
    """A workload that somebody might submit."""
    project: str = "default"
    """Its project."""
    priority: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.add <= MAX_NEW_NODES:
            raise ValueError(f"add between 0 and {MAX_NEW_NODES} nodes, not {self.add}")
        if self.add and not self.like:
            raise ValueError("say which node the new ones are like")


@dataclass(frozen=True, slots=True, kw_only=True)
class RelocatedWorkload:
    """One workload that would go to other places."""

    id: WorkloadId
    project: str
    leaves: tuple[NodeId, ...]
    takes: tuple[NodeId, ...]
    lost_device_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DefragResult:
    """The answer to `karez pool defragment`: what to move, what that frees, what it costs."""

    moves: tuple[RelocatedWorkload, ...]
    freed: tuple[NodeId, ...]
    """Nodes that nobody would use."""
    lost_device_s: float
    carried_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadDiff:
    """What would be different for one workload."""

    id: WorkloadId
    project: str
    before: str
    after: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIfResult:
    """The answer to `karez what-if`: only what would be different."""

    effects: tuple[WorkloadDiff, ...]
    waiting_before: int
    waiting_after: int
