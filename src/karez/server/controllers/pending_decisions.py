"""Scheduling decisions that were made and are not carried out yet. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from karez.core.grants import Grant
from karez.core.workloads import WorkloadId
from karez.scheduling.cluster_state import RunningWorkload
from karez.scheduling.snapshot import AllocatedWorkload

RESIZE_S = 60.0
"""Seconds that a gang may take to change its size; after that it keeps the size it has."""
LENT_S = 30.0
"""Seconds that devices offered to a gang for a lost rank are reserved for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingStart:
    """A start that was decided and waits for other workloads to release devices."""

    grants: tuple[Grant, ...]
    after: frozenset[WorkloadId]
    """Workloads that have to release devices first."""
    reason: str


@dataclass(slots=True, kw_only=True)
class PendingDecisions:
    """Starts, preemptions, resizes and reservations that are under way."""

    starts: dict[WorkloadId, PendingStart] = field(default_factory=dict)
    preempting: set[WorkloadId] = field(default_factory=set)
    """Workloads that were asked to yield and still hold their devices."""
    resizing: dict[WorkloadId, tuple[float, tuple[Grant, ...]]] = field(default_factory=dict)
    """Gangs that were asked to change: (deadline, grants they should have)."""
    inelastic: set[WorkloadId] = field(default_factory=set)
    """Gangs that did not change their size when they were asked to."""
    reserved: list[tuple[float, tuple[Grant, ...]]] = field(default_factory=list)
    """Devices offered to running gangs: (until, grants)."""

    def is_empty(self) -> bool:
        """Whether everything that was decided has been carried out."""
        return not (self.starts or self.preempting or self.resizing or self.reserved)

    def clear(self) -> None:
        """Forget all of them. Gangs known to be inelastic stay known."""
        self.starts.clear()
        self.preempting.clear()
        self.resizing.clear()
        self.reserved.clear()

    def drop_preempted(self, running: Mapping[WorkloadId, AllocatedWorkload]) -> set[WorkloadId]:
        """Forget preemptions of workloads that do not run any more; returns their ids."""
        preempted = self.preempting - running.keys()
        self.preempting -= preempted
        return preempted

    def drop_reserved(
        self, running: Mapping[WorkloadId, AllocatedWorkload], now: float
    ) -> tuple[Grant, ...]:
        """Forget reservations that are used or expired; returns their devices."""
        held = {grant for run in running.values() for grant in run.allocation.grants}
        released: list[Grant] = []
        kept = []
        for until, grants in self.reserved:
            if now >= until or held.issuperset(grants):
                released += grants
            else:
                kept.append((until, grants))
        self.reserved = kept
        return tuple(released)

    def settle(
        self, ident: WorkloadId, actual: Sequence[Grant], decided: RunningWorkload, now: float
    ) -> bool:
        """Whether a running workload holds what was decided, or still may come to hold it.

        A gang that has not changed its size by the deadline counts as inelastic from then on.
        """
        if tuple(actual) == decided.grants:
            self.resizing.pop(ident, None)
            return True
        until, wanted = self.resizing.get(ident, (0.0, ()))
        if wanted == decided.grants and now < until:
            return True
        if self.resizing.pop(ident, None) is not None:
            self.inelastic.add(ident)
        return ident in self.starts

    def waits_for(self, start: PendingStart) -> bool:
        """Whether a start still waits for a preemption or a resize."""
        return any(ident in self.preempting or ident in self.resizing for ident in start.after)
