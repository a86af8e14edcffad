"""State of the cluster: the pool, the running workloads, and what each project holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from karez.core.devices import DeviceKind
from karez.core.gangs import GangSpec
from karez.core.grants import Grant
from karez.core.identity import Project
from karez.core.nodes import NodeId
from karez.core.units import MILLI
from karez.core.workloads import WorkloadId
from karez.scheduling.placement.capacity import AMOUNTS, SLOTS, Pool
from karez.scheduling.queue.fair_share import FairShare
from karez.scheduling.queue.order import RESTART_S, PendingWorkload, SchedulingPolicy, SortKey
from karez.scheduling.queue.quota import charge


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningWorkload:
    """A workload that holds devices."""

    id: WorkloadId
    project: str
    grants: tuple[Grant, ...]
    ends_by: float | None = None
    started_at: float = 0.0
    """When the workload started with these grants."""
    waiting: PendingWorkload | None = None
    """The workload as it was in the queue, where that is known."""

    @property
    def can_stop(self) -> bool:
        """Whether the workload may be preempted."""
        return self.waiting is not None and self.waiting.preemptible

    @property
    def as_pending(self) -> PendingWorkload:
        """The workload as it was in the queue.

        Only such workloads are ever preempted or relocated.

        Raises:
            ValueError: The workload was never in the queue.
        """
        if self.waiting is None:
            raise ValueError(f"{self.id} was never in the queue")
        return self.waiting

    @property
    def workers(self) -> tuple[Grant, ...]:
        """Grants of the workers, without those of roles and spares."""
        return tuple(grant for grant in self.grants if not grant.role)

    @property
    def work_rate(self) -> float:
        """Work per second, as a share of what all wanted workers at speed 1 do.

        Assumes linear scaling, since the real gain of more workers is not known.
        """
        if self.waiting is None or not self.workers:
            return 1.0
        gang = self.waiting.gang
        return work_rate(gang, self.workers)

    def done_s(self, now: float) -> float:
        """Work done so far, in seconds of all wanted workers at speed 1."""
        before = self.waiting.done_s if self.waiting else 0.0
        return before + (now - self.started_at) * self.work_rate

    def stop_cost_s(self, now: float) -> float:
        """Seconds that a stop would cost on all devices of the workload."""
        lost = now - self.started_at if self.waiting and not self.waiting.resumes else 0.0
        return RESTART_S + lost

    def stop_cost_device_s(self, now: float) -> float:
        """Device-seconds that a stop of the workload would cost."""
        return self.stop_cost_s(now) * devices_of(self.grants)


def work_rate(gang: GangSpec, workers: Sequence[Grant]) -> float:
    """Work per second of these workers, as a share of what all wanted workers at speed 1 do."""
    return workers[0].need_among(gang.each).speed * len(workers) / gang.want


@dataclass(slots=True, kw_only=True)
class ClusterState:
    """The pool, the running workloads, and the usage of each project."""

    pool: Pool
    projects: Mapping[str, Project] = field(default_factory=dict)
    running: dict[WorkloadId, RunningWorkload] = field(default_factory=dict)
    elastic: set[WorkloadId] = field(default_factory=set)
    """Running gangs that may change their size."""
    yielding: dict[WorkloadId, None] = field(default_factory=dict)
    """Running workloads that may release devices for others, in the order of `running`."""
    used: dict[tuple[str, DeviceKind], int] = field(default_factory=dict)
    """(project, kind) -> amount held, in the kind's unit."""
    just_started: set[WorkloadId] = field(default_factory=set)
    """Workloads started in the current decision, which does not preempt them."""
    draining: frozenset[NodeId] = frozenset()
    """Nodes that every preemptible workload leaves."""
    over_budget: Mapping[str, str] = field(default_factory=dict)
    """Project that may spend no more -> why; nothing of it starts."""
    fair_share: FairShare = field(default_factory=FairShare)
    penalty_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds by which each project's usage moves its workloads back in the queue."""

    def __post_init__(self) -> None:
        if not self.fair_share.capacity:
            self.fair_share.capacity = capacity_of(self.pool)

    def sort_key(
        self, waiting: PendingWorkload, policy: SchedulingPolicy, done_s: float | None = None
    ) -> SortKey:
        """Sort key of a workload, with the penalty for its project's usage."""
        return self.with_penalty(waiting.sort_key(policy, done_s), waiting.project)

    def with_penalty(self, key: SortKey, project: str) -> SortKey:
        """Move a sort key back by the penalty for its project's usage."""
        priority, place, since, order = key
        return (priority, place + self.penalty_s.get(project, 0.0), since, order)

    def add(self, run: RunningWorkload) -> None:
        """Count a running workload; the pool holds its grants already."""
        self.running[run.id] = run
        if run.waiting is not None and run.waiting.gang.max is not None:
            self.elastic.add(run.id)
        if run.can_stop or run.id in self.elastic:
            self.yielding[run.id] = None
        charge(self.used, run.project, run.grants, 1)

    def remove(self, ident: WorkloadId) -> RunningWorkload:
        """Stop counting a workload; the pool still holds its grants."""
        run = self.running.pop(ident)
        self.elastic.discard(ident)
        self.yielding.pop(ident, None)
        charge(self.used, run.project, run.grants, -1)
        return run

    def resize(self, ident: WorkloadId, grants: tuple[Grant, ...], now: float) -> RunningWorkload:
        """Replace the grants of a running workload; the pool holds the new ones already."""
        run = self.running[ident]
        waiting = replace(run.waiting, done_s=run.done_s(now)) if run.waiting else None
        changed = replace(run, grants=grants, started_at=now, waiting=waiting)
        if waiting is not None and waiting.expected_s is not None:
            ends_by = now + waiting.remaining_s(waiting.done_s) / changed.work_rate
            changed = replace(changed, ends_by=ends_by)
        before, after = set(map(id, run.grants)), set(map(id, grants))
        charge(self.used, run.project, (g for g in run.grants if id(g) not in after), -1)
        charge(self.used, run.project, (g for g in grants if id(g) not in before), 1)
        for index in (self.running, self.yielding):  # the newest change is the last
            if ident in index:
                del index[ident]
        self.running[ident] = changed
        if changed.can_stop or ident in self.elastic:
            self.yielding[ident] = None
        return changed

    def pool_after(self, at: float) -> Pool:
        """Return a copy of the pool as it will be at a time, by the known ends of workloads."""
        pool = self.pool.fork()
        for run in self.running.values():
            if run.ends_by is not None and run.ends_by <= at:
                pool.release(run.grants)
        return pool


def devices_of(grants: Sequence[Grant]) -> float:
    """Count the numbered devices of all grants; a fraction counts as a fraction."""
    return sum(grant.milli for grant in grants) / MILLI


def capacity_of(pool: Pool) -> dict[DeviceKind, int]:
    """Return the capacity of a pool by kind, in the kind's unit."""
    inventory = pool.inventory
    sizes = {kind: int(inventory.bulk_size[:, at].sum()) for at, kind in enumerate(AMOUNTS)}
    for kind in SLOTS:
        of_kind = (pool.masks.get(kind, 0) >> inventory.arrays.model) & 1 == 1
        sizes[kind] = int((inventory.size * of_kind).sum())
    return {kind: size for kind, size in sizes.items() if size}
