"""Preemption plans: which candidates release their devices for a workload, and what they keep."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from karez.core.devices import DeviceKind
from karez.core.grants import Grant
from karez.core.workloads import WorkloadId
from karez.scheduling.cluster_state import ClusterState, RunningWorkload
from karez.scheduling.placement.placement import fits, place_gang
from karez.scheduling.preemption.candidates import PreemptionCandidate, without
from karez.scheduling.queue.order import PendingWorkload
from karez.scheduling.queue.quota import charge, is_within, within_quota

WORKERS_AT_ONCE = 64
"""Workers of one gang that are released before the search looks whether they are enough: more give
a better place, and take longer to spare again."""
Used = dict[tuple[str, DeviceKind], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreemptionPlan:
    """The grants of a workload, and the victims that release them."""

    grants: tuple[Grant, ...]
    keeps: dict[WorkloadId, tuple[Grant, ...]]
    """What each victim keeps: fewer workers, or nothing if it is preempted."""


def find_victims(
    cluster: ClusterState,
    waiting: PendingWorkload,
    candidates: Iterable[PreemptionCandidate],
    until: float | None,
    now: float,
) -> PreemptionPlan | None:
    """Release candidate by candidate until the workload fits, then spare those not needed.

    A large gang that shrinks releases its last workers first, few of them before many.

    None, and nothing changed, if all candidates together are not enough.
    """
    pool, used, victims = cluster.pool, dict(cluster.used), list[PreemptionCandidate]()
    for victim in (part for one in candidates for part in _parts(one)):
        pool.release(victim.releases)
        victims.append(victim)
        charge(used, victim.run.project, victim.releases, -1)
        gang, barred = within_quota(waiting, cluster.projects, used)
        if barred or not fits(gang, pool, until):
            continue
        grants = place_gang(gang, pool, until)
        if grants is not None:
            keeps = _reprieve(cluster, waiting, victims, grants, now)
            return PreemptionPlan(grants=grants, keeps=keeps)
    for victim in victims:
        pool.reserve(victim.releases)
    return None


def _parts(victim: PreemptionCandidate) -> Iterator[PreemptionCandidate]:
    """What a candidate releases; of a large gang that goes on, its last workers before others."""
    end, size = len(victim.releases), WORKERS_AT_ONCE
    while end > 0 and not victim.is_preemption:
        begin = max(0, end - size)
        yield replace(victim, releases=victim.releases[begin:end])
        end, size = begin, 2 * size
    if victim.is_preemption:
        yield victim


def rollback(cluster: ClusterState, plan: PreemptionPlan) -> None:
    """Restore the pool as it was before the plan was made."""
    cluster.pool.release(plan.grants)
    for ident, keeps in plan.keeps.items():
        run = cluster.running[ident]
        cluster.pool.reserve(without(run.grants, keeps))


def _reprieve(
    cluster: ClusterState,
    waiting: PendingWorkload,
    victims: Sequence[PreemptionCandidate],
    grants: Sequence[Grant],
    now: float,
) -> dict[WorkloadId, tuple[Grant, ...]]:
    """Spare victims whose devices are not needed, the dearest first; what the others keep."""
    lost: dict[WorkloadId, dict[int, Grant]] = {}
    used = dict(cluster.used)
    charge(used, waiting.project, grants, 1)
    for victim in victims:
        gone = lost.setdefault(victim.run.id, {})
        gone.update((id(grant), grant) for grant in victim.releases)
        charge(used, victim.run.project, victim.releases, -1)
    stopped = {victim.run.id for victim in victims if victim.is_preemption}
    for victim in sorted(
        victims, key=lambda v: (v.is_preemption, v.run.stop_cost_device_s(now)), reverse=True
    ):
        ident = victim.run.id
        whole = [tuple(lost[ident].values())]
        for part in whole if ident in stopped else [(grant,) for grant in victim.releases]:
            _try_keep(cluster, waiting, used, victim.run, part, lost[ident])
    return {
        ident: without(cluster.running[ident].grants, tuple(gone.values()))
        for ident, gone in lost.items()
        if gone
    }


def _try_keep(
    cluster: ClusterState,
    waiting: PendingWorkload,
    used: Used,
    run: RunningWorkload,
    part: tuple[Grant, ...],
    lost: dict[int, Grant],
) -> None:
    """Let a run keep a part of what it lost, if that is still free and quotas hold."""
    if not part or not all(id(grant) in lost for grant in part):
        return
    if not cluster.pool.is_free(part) or not _is_within_quota(cluster, waiting, used, run, part):
        return
    cluster.pool.reserve(part)
    charge(used, run.project, part, 1)
    for grant in part:
        del lost[id(grant)]


def _is_within_quota(
    cluster: ClusterState,
    waiting: PendingWorkload,
    used: Used,
    run: RunningWorkload,
    part: Sequence[Grant],
) -> bool:
    """Whether quotas still hold if a run keeps this part."""
    after = dict(used)
    charge(after, run.project, part, 1)
    kinds = {kind for grant in part for kind in grant.amounts}
    return all(
        is_within(name, kind, cluster.projects, after)
        or not is_within(name, kind, cluster.projects, cluster.used)  # exceeded before the plan
        for name in (run.project, waiting.project)
        for kind in kinds
    )
