"""The scheduling engine: decides who starts, who waits and who makes room.

The live cloud and a replay run the same engine. It holds the state of one pool, is updated with
what happens, decides, and never acts. Deciding changes its own state as if the decision were
carried out.
"""

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from karez.core.gangs import GangSpec
from karez.core.grants import Grant
from karez.core.workloads import WorkloadId
from karez.scheduling.backfill import Backfill, make_reservation, should_wait_for_faster
from karez.scheduling.cluster_state import ClusterState, RunningWorkload
from karez.scheduling.decisions import Action, Resize, preempted
from karez.scheduling.placement.placement import place_gang
from karez.scheduling.preemption.candidates import reclaimable
from karez.scheduling.preemption.elastic import scale_up
from karez.scheduling.preemptor import Attempt, defragment_for, may_defragment, preempt_for
from karez.scheduling.queue.order import PendingWorkload, QueueOrder, SchedulingPolicy, SortKey
from karez.scheduling.queue.pending_queue import EquivalenceClass, PendingQueue, QueueEntry
from karez.scheduling.queue.quota import within_quota
from karez.scheduling.state_changes import (
    evict_workload,
    release_stopped,
    start_workload,
)
from karez.scheduling.wait_reasons import wait_reasons

BACKFILL_DEPTH = 100
"""How many workloads of a class a reservation may hold back before the rest of the class is skipped
in this pass; Slurm's bf_max_job_test is 500 for all jobs together."""
RESCAN_S = 600.0
"""Seconds between two checks for workloads that fell back in the queue by running on: in that time
one device does the work of WORK_FLOOR, below which all work counts alike."""
ROUNDS = 3
"""Passes through the queue in one decision: a preempted workload may fit somewhere else."""


@dataclass(slots=True, kw_only=True)
class SchedulingEngine:
    """Schedules one partition of the pool."""

    cluster: ClusterState
    policy: SchedulingPolicy = field(default_factory=SchedulingPolicy)
    _queue: PendingQueue = field(default_factory=PendingQueue)
    _blocked: dict[EquivalenceClass, str] = field(default_factory=dict)
    """Classes that do not fit until capacity is released; value: what bars their project, or ''."""
    _deferred: dict[WorkloadId, str] = field(default_factory=dict)
    """Workloads that fit and do better to wait, with the reason."""
    _backfill: Backfill = field(default_factory=Backfill)
    _rescanned_at: float = 0.0
    _defragmented_at: float = float("-inf")
    _now: float = 0.0

    @property
    def pending_count(self) -> int:
        """Number of workloads in the queue."""
        return len(self._queue)

    @property
    def pending(self) -> Mapping[WorkloadId, PendingWorkload]:
        """Workloads in the queue by their ids."""
        return {waiting.id: waiting for waiting in self._queue}

    def add(self, waiting: PendingWorkload) -> None:
        """Add a workload to the queue."""
        rank = waiting.sort_key(self.policy)
        self._queue.add(self.equivalence_class(waiting), rank, waiting)
        self._backfill.drop_if_overtaken(rank, self.policy)

    def remove(self, ident: WorkloadId) -> None:
        """Remove a workload that has not started from the queue."""
        if self._queue.remove(ident):
            self.invalidate()

    def finish(self, ident: WorkloadId) -> RunningWorkload:
        """Release the devices of a workload that has ended."""
        run = self.cluster.remove(ident)
        self.cluster.pool.release(run.grants)
        self.invalidate()
        return run

    def gangs(self) -> Counter[GangSpec]:
        """How many workloads, running or in the queue, are of each gang."""
        gangs: Counter[GangSpec] = Counter()
        for (_, gang, _, _), entries in self._queue.classes():
            gangs[gang] += len(entries)
        running = self.cluster.running.values()
        gangs.update(run.waiting.gang for run in running if run.waiting is not None)
        return gangs

    def invalidate(self) -> None:
        """Forget which classes do not fit: capacity, quota or policy has changed."""
        self._blocked.clear()
        self._deferred.clear()
        self._backfill.reservation = None

    def decide(self, now: float) -> list[Action]:
        """Start what fits, in queue order, and preempt for it where the policy allows that."""
        self._refresh(now)
        decisions: list[Action] = [*release_stopped(self.cluster, now)]
        stopped = [evict_workload(self.cluster, act.id, now) for act in decisions]
        for _ in range(ROUNDS):
            self._requeue(stopped)
            made, stopped = self._schedule_queue(now)
            decisions += made
            if not stopped:
                break
        self._requeue(stopped)
        if self.policy.elastic and self._nobody_waits_for_devices():
            grown = scale_up(self.cluster, now, by_gain=self.policy.grows_by_gain)
            decisions += [Resize(id=ident, grants=more) for ident, more in grown]
        return decisions

    def reasons(self) -> Mapping[WorkloadId, str]:
        """Why each workload in the queue waits, as of the last decision."""
        holder = self._backfill.holder
        reasons = wait_reasons(self._queue, self.cluster, self._blocked, holder, self._now)
        reasons.update((ident, why) for ident, why in self._deferred.items() if ident in reasons)
        return reasons

    def equivalence_class(self, waiting: PendingWorkload) -> EquivalenceClass:
        """The class of a workload: what holds for one of its class holds for all."""
        runs_s = None if self.cluster.pool.next_maintenance_at is None else waiting.needs_s
        return (waiting.project, waiting.gang, waiting.priority, runs_s)

    def _requeue(self, stopped: list[PendingWorkload]) -> None:
        for waiting in stopped:
            self.add(waiting)

    def _nobody_waits_for_devices(self) -> bool:
        """Whether only quotas and budgets bar the workloads in the queue."""
        return all(self._blocked.get(key) for key, _ in self._queue.classes())

    def _refresh(self, now: float) -> None:
        """Update what changes with time alone."""
        cluster, self._now = self.cluster, now
        cluster.just_started.clear()
        if self.policy.fair and self.policy.order == QueueOrder.KAREZ:
            cluster.fair_share.advance(now, cluster.used)
            active = {key[0] for key, _ in self._queue.classes()}
            active.update(run.project for run in cluster.running.values())
            cluster.penalty_s = cluster.fair_share.penalty_s(cluster.projects, active)
        if self.policy.preempts and now - self._rescanned_at >= RESCAN_S:
            self._rescanned_at = now
            self.invalidate()

    def _sort_key(self, entry: QueueEntry) -> SortKey:
        key, waiting = entry
        return self.cluster.with_penalty(key, waiting.project)

    def _schedule_queue(self, now: float) -> tuple[list[Action], list[PendingWorkload]]:
        """Go through the queue once, in order: the decisions, and the workloads they preempt."""
        decisions: list[Action] = []
        stopped: list[PendingWorkload] = []
        heads = [
            (self._sort_key(entries[0]), number, key, 0)
            for number, (key, entries) in enumerate(self._queue.classes())
        ]
        heapq.heapify(heads)
        while heads:
            _, number, key, at = heapq.heappop(heads)
            entries = self._queue.by_class[key]
            made = self._schedule_one(entries[at][1], now)
            if made:
                decisions += made
                self._dequeue(entries, at)
                stopped += [evict_workload(self.cluster, i, now) for i in preempted(made)]
            elif self.policy.is_strict:
                break
            elif key in self._blocked or at >= BACKFILL_DEPTH:
                continue
            else:
                at += 1  # only this one may not pass
            if at < len(entries):
                heapq.heappush(heads, (self._sort_key(entries[at]), number, key, at))
        return decisions, stopped

    def _dequeue(self, entries: list[QueueEntry], at: int) -> None:
        """Remove a workload that has started from the queue."""
        ident = entries.pop(at)[1].id
        self._backfill.drop_if_held_by(ident)
        self._deferred.pop(ident, None)

    def _schedule_one(self, waiting: PendingWorkload, now: float) -> list[Action]:
        """Decide what starts one workload now; nothing if it must wait."""
        key, cluster = self.equivalence_class(waiting), self.cluster
        if self._blocked.get(key):
            return []  # its project's quota is full
        if waiting.project in cluster.over_budget:
            self._blocked[key] = cluster.over_budget[waiting.project]
            return []
        gang, over_quota = within_quota(waiting, cluster.projects, cluster.used)
        until = None if key[3] is None else now + key[3]
        attempt = Attempt(waiting=waiting, gang=gang, until=until, now=now)
        if over_quota:
            return self._reclaim_for(attempt, over_quota)
        if key in self._blocked:
            self._reserve(attempt)
            return []
        grants = place_gang(gang, cluster.pool, until)
        if grants is not None:
            return self._try_start(attempt, grants)
        made = self._make_room(attempt)
        if not made:
            self._blocked[key] = ""
            self._reserve(attempt)
        return made

    def _reclaim_for(self, attempt: Attempt, over_quota: str) -> list[Action]:
        """Take back what the project lent; block the class if nothing is owed to it."""
        cluster, waiting = self.cluster, attempt.waiting
        made = preempt_for(cluster, self.policy, self._backfill, attempt, is_barred=True)
        # A borrower that started in this pass cannot be stopped before the next round.
        may_be_owed = (
            self.policy.preempts and cluster.just_started and reclaimable(cluster, waiting)
        )
        if not made and not may_be_owed:
            self._blocked[self.equivalence_class(waiting)] = over_quota
        return made

    def _try_start(self, attempt: Attempt, grants: tuple[Grant, ...]) -> list[Action]:
        """Start a workload that fits, unless it may not pass or does better to wait."""
        cluster, waiting, now = self.cluster, attempt.waiting, attempt.now
        if not self._backfill.allows(waiting, grants, now):
            cluster.pool.release(grants)
            return []
        if self.policy.order == QueueOrder.KAREZ and should_wait_for_faster(
            cluster, waiting, attempt.gang, grants, now
        ):
            cluster.pool.release(grants)
            self._deferred[waiting.id] = "it ends sooner if it waits for a faster alternative"
            return []
        return [start_workload(cluster, waiting, grants, now)]

    def _make_room(self, attempt: Attempt) -> list[Action]:
        """Start a workload that does not fit by relocating or preempting others."""
        made: list[Action] = []
        is_due = attempt.now - self._defragmented_at >= RESCAN_S
        # Relocation comes first: nobody loses its place in the queue by it.
        if is_due and may_defragment(self.cluster, self.policy, self._backfill, attempt):
            self._defragmented_at = attempt.now
            made = defragment_for(self.cluster, attempt)
        return made or preempt_for(
            self.cluster, self.policy, self._backfill, attempt, is_barred=False
        )

    def _reserve(self, attempt: Attempt) -> None:
        """Reserve for the first workload that does not fit, once it has waited long enough."""
        late = attempt.has_waited(self.policy)
        if self._backfill.reservation is None and late and not self.policy.is_strict:
            self._backfill.reservation = make_reservation(
                self.cluster, attempt.waiting, attempt.gang, attempt.now
            )
