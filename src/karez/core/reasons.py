"""Why a workload waits, when it may start, and the smallest change that would start it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from karez.core.resources import DeviceKind, Node, NodeId
from karez.core.workloads import State, Topology, WorkloadId


@dataclass(frozen=True, slots=True, kw_only=True)
class Hurdle:
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
    held: float
    asked: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds devices of a kind that is asked for."""

    id: WorkloadId
    project: str
    kind: DeviceKind
    devices: float
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something that would start the workload now; what is left out stays as it is."""

    what: str
    """In words, with the command where there is one."""
    priority: int | None = None
    """Its new priority."""
    quota_milli: Mapping[DeviceKind, int] = field(default_factory=dict)
    """New limits of its project."""
    workers: int | None = None
    kind: DeviceKind | None = None
    topology: Topology | None = None
    stop: tuple[WorkloadId, ...] = ()
    uncordon: tuple[NodeId, ...] = ()
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
class Why:
    """The answer to `karez why`."""

    id: WorkloadId
    name: str
    state: State
    reason: str
    ahead: int = 0
    """How many stand before it in line."""
    hurdles: tuple[Hurdle, ...] = ()
    quota: tuple[QuotaLine, ...] = ()
    holders: tuple[Holder, ...] = ()
    starts: Estimate | None = None
    changes: tuple[Change, ...] = ()
    """Each by itself would start it now; the smallest first."""
