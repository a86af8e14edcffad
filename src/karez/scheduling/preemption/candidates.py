"""Preemption candidates: running workloads that could release devices for a pending one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from karez.core.grants import Grant
from karez.core.resource_requests import ResourceRequest
from karez.scheduling.cluster_state import ClusterState, RunningWorkload
from karez.scheduling.placement.capacity import SLOTS
from karez.scheduling.queue.order import (
    AGING_S_PER_DOUBLING,
    PendingWorkload,
    SchedulingPolicy,
    SortKey,
)
from karez.scheduling.queue.quota import share_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PreemptionCandidate:
    """Grants that a running workload could release."""

    run: RunningWorkload
    releases: tuple[Grant, ...]
    is_preemption: bool
    """Whether the workload stops; else it continues with fewer workers."""


def candidates(
    cluster: ClusterState, waiting: PendingWorkload, policy: SchedulingPolicy, now: float
) -> list[PreemptionCandidate]:
    """Preemption candidates: surplus workers of elastic gangs, then lower-ranked workloads.

    The lowest rank comes first. A workload may be preempted if it ranks lower by a whole doubling
    or has a lower priority, and has longer to run than `waiting`, by more than the stop costs.
    """
    victims = _surplus_candidates(cluster) if policy.elastic else []
    for run in _lower_ranked(cluster, waiting, policy, now):
        is_elastic = policy.elastic and run.id in cluster.elastic
        gang = run.as_pending.gang
        workers = run.workers if is_elastic else ()
        less, dispensable = workers[gang.min : gang.want], workers[gang.min :]
        if less:
            victims.append(PreemptionCandidate(run=run, releases=less, is_preemption=False))
        if run.can_stop and policy.preempts:
            rest = without(run.grants, dispensable)
            victims.append(PreemptionCandidate(run=run, releases=rest, is_preemption=True))
    return victims if _may_suffice(cluster, waiting, victims) else []


def _surplus_candidates(cluster: ClusterState) -> list[PreemptionCandidate]:
    """What gangs have beyond their wanted size; only one with a maximum changes while it runs."""
    return [
        PreemptionCandidate(run=run, releases=more, is_preemption=False)
        for run in sorted((cluster.running[i] for i in cluster.elastic), key=lambda run: run.id)
        if run.id not in cluster.just_started
        if (more := run.workers[run.as_pending.gang.want :])
    ]


def _lower_ranked(
    cluster: ClusterState, waiting: PendingWorkload, policy: SchedulingPolicy, now: float
) -> list[RunningWorkload]:
    """Running workloads that `waiting` may preempt or shrink, the lowest rank first."""
    priority, place, _, _ = cluster.sort_key(waiting, policy)
    lower: list[tuple[SortKey, RunningWorkload]] = []
    for run in map(cluster.running.__getitem__, cluster.yielding):
        is_fixed = not (run.can_stop or policy.elastic) or run.id in cluster.just_started
        if run.waiting is None or is_fixed:
            continue
        done_s = run.done_s(now)
        rank = cluster.sort_key(run.waiting, policy, done_s)
        is_behind = rank[0] > priority or rank[1] > place + AGING_S_PER_DOUBLING
        gain_s = run.waiting.remaining_s(done_s) - waiting.remaining_s(waiting.done_s)
        pays = gain_s > run.stop_cost_s(now) or rank[0] > priority
        if rank[0] >= priority and is_behind and pays:
            lower.append((rank, run))
    lower.sort(key=lambda pair: pair[0], reverse=True)
    return [run for _, run in lower]


def without(grants: Sequence[Grant], gone: Sequence[Grant]) -> tuple[Grant, ...]:
    """The grants that are not some very grants; equal grants may be two workers."""
    there = set(map(id, gone))
    return tuple(grant for grant in grants if id(grant) not in there)


def _may_suffice(
    cluster: ClusterState, waiting: PendingWorkload, victims: Sequence[PreemptionCandidate]
) -> bool:
    """Whether all candidates together could release enough: a cheap check by device count."""
    gang = waiting.gang
    if not victims or not all(need.kind in SLOTS for need in gang.each):
        return bool(victims)
    least = min(need.milli for need in gang.each) * gang.min
    gives = sum(grant.milli for victim in victims for grant in victim.releases)
    return cluster.pool.inventory.free_milli + gives >= least


def borrowers(
    cluster: ClusterState, waiting: PendingWorkload, now: float
) -> list[PreemptionCandidate]:
    """Find workloads that hold what this workload's project lent, the cheapest to stop first.

    A guarantee is a right: the borrower's cost is not weighed against the owner's gain.
    """
    owner = cluster.projects.get(waiting.project)
    kinds = {kind for need in waiting.gang.each for kind in need.amounts}
    if owner is None:
        return []
    victims = []
    for run in cluster.running.values():
        borrower = cluster.projects.get(run.project)
        if borrower is None or borrower.cohort != owner.cohort or run.project == owner.name:
            continue
        exceeds = any(
            cluster.used.get((run.project, kind), 0) > borrower.guarantee.get(kind, 0)
            and any(kind in grant.amounts for grant in run.grants)
            for kind in kinds
        )
        if exceeds and run.can_stop and run.id not in cluster.just_started:
            victims.append(PreemptionCandidate(run=run, releases=run.grants, is_preemption=True))
    return sorted(victims, key=lambda v: (v.run.stop_cost_device_s(now), v.run.id))


def reclaimable(cluster: ClusterState, waiting: PendingWorkload) -> PendingWorkload | None:
    """Reduce a workload to what its project's guarantee entitles it to; None: to nothing.

    A project that reclaims what it lent so never becomes a borrower by that.
    """
    entitled: list[tuple[int, ResourceRequest]] = []
    for need in waiting.gang.each:
        rooms = []
        for kind, amount in need.amounts.items():
            share = share_of(waiting.project, kind, cluster.projects, cluster.used)
            if share.guarantee:
                rooms.append((share.guarantee - share.held) // amount)
        if rooms and min(rooms) >= waiting.gang.min:
            entitled.append((min(rooms), need))
    if not entitled:
        return None
    want = min(waiting.gang.want, *(room for room, _ in entitled))
    each = tuple(need for _, need in entitled)
    return replace(waiting, gang=replace(waiting.gang, each=each, want=want, spares=0))
