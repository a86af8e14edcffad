"""Decides who starts, who waits and who must make room: the same for the live cloud and a replay.

A desk knows the pool, the line and what runs. It is told what happens, asked to decide, and never
acts. Workloads of one kind (same project, gang and priority) form a class: what holds for its
first holds for all, so a long line costs no more than its classes.
"""

import heapq
from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from operator import itemgetter

from karez.core.gangs import GangSpec
from karez.core.grants import Grant
from karez.core.workloads import WorkloadId
from karez.scheduling.backfill import Reservation, make_reservation, should_wait_for_faster
from karez.scheduling.cluster_state import ClusterState, RunningWorkload
from karez.scheduling.placement.capacity import SLOTS
from karez.scheduling.placement.placement import explain_unplaced, place_gang
from karez.scheduling.preemption.defragment import DefragPlan, plan_defrag_for
from karez.scheduling.preemption.elastic import scale_up
from karez.scheduling.preemption.preemption import (
    PreemptionPlan,
    borrowers,
    candidates,
    find_victims,
    reclaimable,
    rollback,
)
from karez.scheduling.queue.order import PendingWorkload, QueueOrder, SchedulingPolicy, SortKey
from karez.scheduling.queue.quota import within_quota

BACKFILL_DEPTH = 100
"""How many of a class may be passed over for the sake of a reservation before the rest of it is
left for later; Slurm's bf_max_job_test is 500 for all jobs together."""
RESCAN_S = 600.0
"""Seconds between two looks at what has fallen back in line by running on: in that time one device
does the work below which all counts alike."""


ROUNDS = 3
"""How often the line is gone through in one decision: who was stopped may fit somewhere else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Give a workload its devices now."""

    id: WorkloadId
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preempt:
    """Stop a workload and put it back in line."""

    id: WorkloadId
    by: WorkloadId | None
    """Who starts in its place; None: its node is needed for something else."""
    lost_device_s: float
    """What the stop costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """Go on with these grants: more workers, or fewer."""

    id: WorkloadId
    grants: tuple[Grant, ...]
    by: WorkloadId | None = None
    """Who needs what it gives up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Leave a workload in the queue, with the reason."""

    id: WorkloadId
    reason: str


Action = Start | Preempt | Resize
Decision = Action | Wait
EquivalenceClass = tuple[str, GangSpec, int, float | None]


@dataclass(slots=True, kw_only=True)
class SchedulingEngine:
    """One partition of the pool."""

    cluster: ClusterState
    policy: SchedulingPolicy = field(default_factory=SchedulingPolicy)
    _queue: dict[EquivalenceClass, list[tuple[SortKey, PendingWorkload]]] = field(
        default_factory=dict
    )
    _blocked: dict[EquivalenceClass, str] = field(default_factory=dict)
    """Classes that have no room until something is given back; the text is for a full quota."""
    _deferred: dict[WorkloadId, str] = field(default_factory=dict)
    """Who could start and does better to wait."""
    _reservation: Reservation | None = None
    _rescanned_at: float = 0.0
    _defragmented_at: float = float("-inf")
    _now: float = 0.0

    @property
    def pending_count(self) -> int:
        """How many stand in line."""
        return sum(map(len, self._queue.values()))

    @property
    def pending(self) -> Mapping[WorkloadId, PendingWorkload]:
        """Those in line."""
        return {one.id: one for line in self._queue.values() for _, one in line}

    def add(self, waiting: PendingWorkload) -> None:
        """One more stands in line."""
        line = self._queue.setdefault(self.equivalence_class(waiting), [])
        rank = waiting.sort_key(self.policy)
        insort(line, (rank, waiting), key=itemgetter(0))
        if self._reservation is not None and rank < self._reservation.holder.sort_key(self.policy):
            self._reservation = None  # it is no longer the first

    def remove(self, ident: WorkloadId) -> None:
        """One leaves the line without having started."""
        for key, line in self._queue.items():
            kept = [pair for pair in line if pair[1].id != ident]
            if len(kept) < len(line):
                self._queue[key] = kept
                self.invalidate()
                return

    def finish(self, ident: WorkloadId) -> RunningWorkload:
        """A workload has ended: its devices are free."""
        run = self.cluster.remove(ident)
        self.cluster.pool.release(run.grants)
        self.invalidate()
        return run

    def invalidate(self) -> None:
        """Something is not as it was: who found no room may find some."""
        self._blocked.clear()
        self._deferred.clear()
        self._reservation = None

    def decide(self, now: float) -> list[Action]:
        """Start what fits, in order; make room for it where the rules let it."""
        self._refresh(now)
        decisions: list[Action] = self._drain(now)
        stopped = [self._evict(act.id, now) for act in decisions]
        for _ in range(ROUNDS):
            for waiting in stopped:
                self.add(waiting)
            made, stopped = self._schedule_queue(now)
            decisions += made
            if not stopped:
                break
        for waiting in stopped:
            self.add(waiting)
        barred = (self._blocked.get(key) for key, line in self._queue.items() if line)
        if self.policy.elastic and all(barred):  # nobody waits for devices
            decisions += [
                Resize(id=ident, grants=more) for ident, more in scale_up(self.cluster, now)
            ]
        return decisions

    def _schedule_queue(self, now: float) -> tuple[list[Action], list[PendingWorkload]]:
        """Everyone in line once, in order: what was decided, and who was stopped for others."""
        decisions: list[Action] = []
        stopped: list[PendingWorkload] = []
        heads: list[tuple[SortKey, int, EquivalenceClass, int]] = [
            (self._sort_key(line[0]), number, key, 0)
            for number, (key, line) in enumerate(self._queue.items())
            if line
        ]
        heapq.heapify(heads)
        while heads:
            _, number, key, at = heapq.heappop(heads)
            line = self._queue[key]
            made = self._schedule_one(line[at][1], now)
            if made:
                decisions += made
                del line[at]
                moved = {d.id for d in made if isinstance(d, Start)}
                for decision in made:
                    if isinstance(decision, Preempt) and decision.id not in moved:
                        stopped.append(self._evict(decision.id, now))
            elif self.policy.is_strict:
                break
            elif key in self._blocked or at >= BACKFILL_DEPTH:
                continue
            else:
                at += 1  # only this one may not pass
            if at < len(line):
                heapq.heappush(heads, (self._sort_key(line[at]), number, key, at))
        return decisions, stopped

    def reasons(self) -> Mapping[WorkloadId, str]:
        """Why each of those in line waits, as of the last decision."""
        behind = "it is its turn after others of its kind"
        if self._reservation is not None:
            holder = self._reservation.holder.id
            behind = (
                f"{holder} is first in line and has waited long; set max_duration to pass it safely"
            )
        found: dict[WorkloadId, str] = {}
        for key, line in self._queue.items():
            if not line:
                continue
            gang, barred = within_quota(line[0][1], self.cluster.projects, self.cluster.used)
            why = self._blocked.get(key, barred or behind)
            if not why:
                until = None if key[3] is None else self._now + key[3]
                why = explain_unplaced(gang, self.cluster.pool, until)
            found.update((waiting.id, why) for _, waiting in line)
        found.update((ident, why) for ident, why in self._deferred.items() if ident in found)
        return found

    # inside

    def equivalence_class(self, waiting: PendingWorkload) -> EquivalenceClass:
        """What it shares with others in line: what holds for one holds for all."""
        runs_s = None if self.cluster.pool.next_maintenance_at is None else waiting.needs_s
        return (waiting.project, waiting.gang, waiting.priority, runs_s)

    def _sort_key(self, pair: tuple[SortKey, PendingWorkload]) -> SortKey:
        (priority, place, since, order), waiting = pair
        back = self.cluster.penalty_s.get(waiting.project, 0.0)
        return (priority, place + back, since, order)

    def _refresh(self, now: float) -> None:
        """What time alone has changed."""
        cluster, self._now = self.cluster, now
        cluster.just_started.clear()
        if self.policy.fair and self.policy.order == QueueOrder.KAREZ:
            cluster.fair_share.advance(now, cluster.used)
            active = {key[0] for key, line in self._queue.items() if line}
            active.update(run.project for run in cluster.running.values())
            cluster.penalty_s = cluster.fair_share.penalty_s(cluster.projects, active)
        if self.policy.preempts and now - self._rescanned_at >= RESCAN_S:
            self._rescanned_at = now
            self.invalidate()

    def _drain(self, now: float) -> list[Action]:
        """Stop what can be stopped on nodes that are needed for something else."""
        cluster = self.cluster
        if not cluster.draining:
            return []
        leaving = [
            run
            for run in cluster.running.values()
            if run.can_stop and any(grant.node in cluster.draining for grant in run.grants)
        ]
        for run in leaving:
            cluster.pool.release(run.grants)
        return [Preempt(id=r.id, by=None, lost_device_s=r.stop_cost_device_s(now)) for r in leaving]

    def _schedule_one(self, waiting: PendingWorkload, now: float) -> list[Action]:
        """What starts one workload now; nothing if it must wait."""
        key, cluster = self.equivalence_class(waiting), self.cluster
        if self._blocked.get(key):
            return []  # its project's quota is full
        gang, reason = within_quota(waiting, cluster.projects, cluster.used)
        until = None if key[3] is None else now + key[3]
        if reason:
            made = self._preempt_for(waiting, until, now, is_barred=True)
            may_be_owed = (
                self.policy.preempts and cluster.just_started and reclaimable(cluster, waiting)
            )
            if not made and not may_be_owed:
                self._blocked[key] = reason  # else it may have what it lent, a moment later
            return made
        if key in self._blocked:
            self._reserve(waiting, gang, now)
            return []
        grants = place_gang(gang, cluster.pool, until)
        if grants is not None:
            return self._try_start(waiting, gang, grants, now)
        made = self._defragment_for(
            waiting, gang, until, now
        )  # nobody loses its place in line by it
        made = made or self._preempt_for(waiting, until, now, is_barred=False)
        if not made:
            self._blocked[key] = ""
            self._reserve(waiting, gang, now)
        return made

    def _try_start(
        self, waiting: PendingWorkload, gang: GangSpec, grants: tuple[Grant, ...], now: float
    ) -> list[Action]:
        """Start it at places that are free, unless it may not pass or does better to wait."""
        if not self._may_backfill(waiting, grants, now):
            self.cluster.pool.release(grants)
            return []
        if self.policy.order == QueueOrder.KAREZ and should_wait_for_faster(
            self.cluster, waiting, gang, grants, now
        ):
            self.cluster.pool.release(grants)
            self._deferred[waiting.id] = "it ends sooner if it waits for a faster alternative"
            return []
        return [self._start(waiting, grants, now)]

    def _may_backfill(
        self, waiting: PendingWorkload, grants: tuple[Grant, ...], now: float
    ) -> bool:
        """Whether a start like this leaves the first in line its reservation."""
        held = self._reservation
        if held is None or held.holder.id == waiting.id:
            return True
        return held.allows(grants, waiting.ends_by(now))

    def _start(self, waiting: PendingWorkload, grants: tuple[Grant, ...], now: float) -> Start:
        if self._reservation is not None and self._reservation.holder.id == waiting.id:
            self._reservation = None
        self._deferred.pop(waiting.id, None)
        run = RunningWorkload(
            id=waiting.id, project=waiting.project, grants=grants, started_at=now, waiting=waiting
        )
        ends_by = waiting.ends_by(now)
        if waiting.expected_s is not None:
            ends_by = now + waiting.remaining_s(waiting.done_s) / run.work_rate
        self.cluster.add(replace(run, ends_by=ends_by))
        self.cluster.just_started.add(run.id)
        return Start(id=waiting.id, grants=grants)

    def _evict(self, ident: WorkloadId, now: float) -> PendingWorkload:
        """Take a preempted workload off; its devices were given back when room was made."""
        run = self.cluster.remove(ident)
        waiting = run.as_pending
        return replace(waiting, done_s=run.done_s(now) if waiting.resumes else 0.0)

    def _reserve(self, waiting: PendingWorkload, gang: GangSpec, now: float) -> None:
        """The first that finds no room holds a reservation once its patience is over."""
        late = now - waiting.since > self.policy.reserve_after_s
        if self._reservation is None and late and not self.policy.is_strict:
            self._reservation = make_reservation(self.cluster, waiting, gang, now)

    def _preempt_for(
        self, waiting: PendingWorkload, until: float | None, now: float, *, is_barred: bool
    ) -> list[Action]:
        """Have others give up what starts this one, if it is owed or worth it."""
        policy, cluster = self.policy, self.cluster
        if not policy.preempts and not policy.elastic:
            return []
        room: PreemptionPlan | None = None
        entitled = reclaimable(cluster, waiting) if policy.preempts else None
        if entitled is not None:
            room = find_victims(cluster, entitled, borrowers(cluster, entitled, now), until, now)
        if room is None and not is_barred:
            room = find_victims(
                cluster, waiting, candidates(cluster, waiting, policy, now), until, now
            )
            if room is not None and not self._may_backfill(waiting, room.grants, now):
                rollback(cluster, room)
                return []
        if room is None:
            return []
        made: list[Action] = []
        for ident, keeps in room.keeps.items():
            run = cluster.running[ident]
            if keeps:
                cluster.resize(ident, keeps, now)
                made.append(Resize(id=ident, grants=keeps, by=waiting.id))
            else:
                lost = run.stop_cost_device_s(now)
                made.append(Preempt(id=ident, by=waiting.id, lost_device_s=lost))
        return [*made, self._start(waiting, room.grants, now)]

    def _defragment_for(
        self, waiting: PendingWorkload, gang: GangSpec, until: float | None, now: float
    ) -> list[Action]:
        """Move others together for one that has waited long, if it gains more than they lose."""
        late = now - waiting.since > self.policy.reserve_after_s
        if not self.policy.defragments or not late or now - self._defragmented_at < RESCAN_S:
            return []
        if self._reservation is not None and self._reservation.holder.id != waiting.id:
            return []
        least = min(need.milli for need in gang.each) * gang.min
        in_slots = all(need.kind in SLOTS for need in gang.each)
        if in_slots and self.cluster.pool.inventory.free_milli < least:
            return []  # moving makes no devices
        self._defragmented_at = now
        plan = plan_defrag_for(self.cluster, gang, until, now)
        if plan is None or plan.cost_device_s > self._start_gain(waiting, gang, now):
            return []
        return self._relocate_and_start(waiting, plan, now)

    def _start_gain(self, waiting: PendingWorkload, gang: GangSpec, now: float) -> float:
        """Device-seconds of waiting that an immediate start saves, as far as ends are known."""
        opens_at = make_reservation(self.cluster, waiting, gang, now).starts_at
        waits_s = now - waiting.since if opens_at is None else opens_at - now
        return waits_s * waiting.devices

    def _relocate_and_start(
        self, waiting: PendingWorkload, plan: DefragPlan, now: float
    ) -> list[Action]:
        made = self.relocate({move.id: move.takes for move in plan.relocations}, now, by=waiting.id)
        self.cluster.pool.reserve(plan.grants)
        return [*made, self._start(waiting, plan.grants, now)]

    def relocate(
        self,
        places: Mapping[WorkloadId, tuple[Grant, ...]],
        now: float,
        by: WorkloadId | None = None,
    ) -> list[Action]:
        """Running work goes to other places, which are free once all of it has left its own."""
        made: list[Action] = []
        cluster = self.cluster
        runs = [cluster.remove(ident) for ident in places]
        for run in runs:
            cluster.pool.release(run.grants)
        for run in runs:
            made.append(Preempt(id=run.id, by=by, lost_device_s=run.stop_cost_device_s(now)))
            cluster.pool.reserve(places[run.id])
            again = replace(run.as_pending, done_s=run.done_s(now))
            made.append(self._start(again, places[run.id], now))
        return made
