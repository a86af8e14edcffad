"""Differences between what the store has and what the scheduling engine counts. No I/O.

The engine stays in memory between passes. Each pass hands it a ClusterDelta: what was released,
ended, withdrawn, started or submitted since the last one.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from karez.core.workloads import WorkloadId
from karez.scheduling.cluster_state import RunningWorkload
from karez.scheduling.decision_log import ClusterDelta
from karez.scheduling.engine import SchedulingEngine
from karez.scheduling.queue.order import PendingWorkload
from karez.scheduling.snapshot import to_running
from karez.server.controllers.pending_decisions import PendingDecisions
from karez.server.controllers.store_view import StoreView


@dataclass(slots=True, kw_only=True)
class DeltaBuilder:
    """Compares one reading of the store with the engine and the decisions under way."""

    engine: SchedulingEngine
    pending: PendingDecisions
    view: StoreView
    now: float

    def build(self) -> ClusterDelta:
        """The delta of workloads; nodes and projects are the caller's to add."""
        preempted = self.pending.drop_preempted(self.view.running)
        released = self.pending.drop_reserved(self.view.running, self.now)
        ended = self._ended()
        started = self._newly_running(ended)
        withdrawn = self._withdrawn({run.id for run in started}, preempted)
        return ClusterDelta(
            at=self.now,
            released=released,
            ended=ended,
            withdrawn=withdrawn,
            running=started,
            arrived=self._arrived(set(withdrawn), ended),
        )

    def _ended(self) -> tuple[WorkloadId, ...]:
        """Workloads that the engine counts as running and that do not run as was decided."""
        view, pending = self.view, self.pending
        ended = []
        present = view.waiting.keys() | pending.preempting
        for ident, run in self.engine.cluster.running.items():
            actual = view.running.get(ident)
            if actual is None:
                pending.resizing.pop(ident, None)
                if ident not in pending.starts or ident not in present:
                    ended.append(ident)
                    pending.starts.pop(ident, None)
            elif ident not in pending.preempting and not pending.settle(
                ident, actual.allocation.grants, run, self.now
            ):
                ended.append(ident)
        return tuple(ended)

    def _newly_running(self, ended: tuple[WorkloadId, ...]) -> tuple[RunningWorkload, ...]:
        """Workloads that run and that the engine does not count, or counts with other grants."""
        counted = self.engine.cluster.running.keys() - set(ended)
        inelastic = self.pending.inelastic
        return tuple(
            _as_inelastic(to_running(actual)) if ident in inelastic else to_running(actual)
            for ident, actual in self.view.running.items()
            if ident not in counted and ident not in self.pending.preempting
        )

    def _withdrawn(
        self, started: AbstractSet[WorkloadId], preempted: AbstractSet[WorkloadId]
    ) -> tuple[WorkloadId, ...]:
        """Workloads to take out of the engine's queue: gone, started, or changed."""
        view = self.view
        return tuple(
            ident
            for ident, queued in self.engine.pending.items()
            if ident in started
            or (ident not in view.running and ident not in view.waiting)
            or (ident in preempted and not _matches_record(view.waiting.get(ident, queued), queued))
        )

    def _arrived(
        self, withdrawn: AbstractSet[WorkloadId], ended: tuple[WorkloadId, ...]
    ) -> tuple[PendingWorkload, ...]:
        """Queued workloads that the engine does not have."""
        queue, running = self.engine.pending, self.engine.cluster.running
        return tuple(
            waiting
            for ident, waiting in self.view.waiting.items()
            if (ident not in queue or ident in withdrawn)
            and (ident not in running or ident in ended)
        )


def _as_inelastic(run: RunningWorkload) -> RunningWorkload:
    """The same workload, as one that never changes its size."""
    waiting = run.as_pending
    return replace(run, waiting=replace(waiting, gang=replace(waiting.gang, max=None)))


def _matches_record(waiting: PendingWorkload, queued: PendingWorkload) -> bool:
    """Whether a preempted workload was requeued as the engine has it: run time to the second."""
    near = abs(waiting.done_s - queued.done_s) < 1.0
    return near and replace(waiting, done_s=0.0, order=0) == replace(queued, done_s=0.0, order=0)
