"""Queued and running workloads as the store has them. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from karez.core.workloads import WorkloadId
from karez.scheduling.queue.order import PendingWorkload
from karez.scheduling.snapshot import AllocatedWorkload


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreView:
    """One reading of the workloads in the store."""

    queued: Sequence[tuple[WorkloadId, str, str]]
    """(id, kind, reason shown to the user), in order of submission."""
    waiting: Mapping[WorkloadId, PendingWorkload]
    running: Mapping[WorkloadId, AllocatedWorkload]

    def has_elastic(self) -> bool:
        """Whether a running gang may grow."""
        runs = self.running.values()
        return any(run.waiting and run.waiting.gang.max is not None for run in runs)
