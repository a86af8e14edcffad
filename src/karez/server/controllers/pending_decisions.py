"""Scheduling decisions that were made and are not carried out yet. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from karez.core.grants import Grant
from karez.core.workloads import WorkloadId

RESIZE_S = 60.0
"""Seconds that a gang has to take a request for another size; after that it is withdrawn."""
GRACE_S = 15.0
"""Seconds after that in which a gang that has taken the request still changes its size."""
LENT_S = 30.0
"""Seconds that devices offered to a gang for a lost rank are reserved for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingStart:
    """A start that was decided and waits for other workloads to release devices."""

    grants: tuple[Grant, ...]
    after: frozenset[WorkloadId]
    """Workloads that have to release devices first."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingResize:
    """Another size that a gang was asked to take."""

    grants: tuple[Grant, ...]
    until: float
    """UTC epoch seconds: then the request is withdrawn."""
    is_asked: bool = True
    """Whether the gang was asked: it is once nobody holds what it is to take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Devices that were offered to a running gang for a lost rank."""

    grants: tuple[Grant, ...]
    until: float
    """UTC epoch seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingDecisions:
    """Starts, preemptions, resizes and reservations that are under way.

    The store has them, so that a control that starts again goes on with them.
    """

    starts: Mapping[WorkloadId, PendingStart] = field(default_factory=dict)
    preempting: frozenset[WorkloadId] = frozenset()
    """Workloads that were asked to yield and still hold their devices."""
    resizing: Mapping[WorkloadId, PendingResize] = field(default_factory=dict)
    inelastic: frozenset[WorkloadId] = frozenset()
    """Gangs that did not change their size when they were asked to."""
    reserved: tuple[Reservation, ...] = ()

    def is_empty(self) -> bool:
        """Whether everything that was decided has been carried out."""
        return not (self.starts or self.preempting or self.resizing or self.reserved)

    def forgotten(self) -> "PendingDecisions":
        """None of them. Gangs known to be inelastic stay known."""
        return PendingDecisions(inelastic=self.inelastic)

    def waits_for(self, start: PendingStart) -> bool:
        """Whether a start still waits for a preemption or a resize."""
        return any(ident in self.preempting or ident in self.resizing for ident in start.after)
