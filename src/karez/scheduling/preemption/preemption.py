"""Preemption plans: which candidates release their devices for a workload, and what they keep."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from karez.core.devices import DeviceKind
from karez.core.grants import Grant
from karez.core.workloads import WorkloadId
from karez.scheduling.cluster_state import ClusterState, RunningWorkload
from karez.scheduling.placement.placement import fits, place_gang
from karez.scheduling.preemption.candidates import PreemptionCandidate, is_among
from karez.scheduling.queue.order import PendingWorkload
from karez.scheduling.queue.quota import charge, is_within, within_quota

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

    None, and nothing changed, if all candidates together are not enough.
    """
    pool, used, victims = cluster.pool, dict(cluster.used), list[PreemptionCandidate]()
    for victim in candidates:
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


def rollback(cluster: ClusterState, plan: PreemptionPlan) -> None:
    """Restore the pool as it was before the plan was made."""
    cluster.pool.release(plan.grants)
    for ident, keeps in plan.keeps.items():
        run = cluster.running[ident]
        cluster.pool.reserve([grant for grant in run.grants if not is_among(grant, keeps)])


def _reprieve(
    cluster: ClusterState,
    waiting: PendingWorkload,
    victims: Sequence[PreemptionCandidate],
    grants: Sequence[Grant],
    now: float,
) -> dict[WorkloadId, tuple[Grant, ...]]:
    """Spare victims whose devices are not needed, the dearest first; what the others keep."""
    lost: dict[WorkloadId, list[Grant]] = {}
    used = dict(cluster.used)
    charge(used, waiting.project, grants, 1)
    for victim in victims:
        lost.setdefault(victim.run.id, []).extend(victim.releases)
        charge(used, victim.run.project, victim.releases, -1)
    for victim in sorted(
        victims, key=lambda v: (v.is_preemption, v.run.stop_cost_device_s(now)), reverse=True
    ):
        is_stopped = any(v.is_preemption and v.run is victim.run for v in victims)
        whole = [tuple(lost[victim.run.id])]
        for part in whole if is_stopped else [(grant,) for grant in victim.releases]:
            _try_keep(cluster, waiting, used, victim.run, part, lost[victim.run.id])
    return {
        ident: tuple(g for g in cluster.running[ident].grants if not is_among(g, gone))
        for ident, gone in lost.items()
        if gone
    }


def _try_keep(
    cluster: ClusterState,
    waiting: PendingWorkload,
    used: Used,
    run: RunningWorkload,
    part: tuple[Grant, ...],
    lost: list[Grant],
) -> None:
    """Let a run keep a part of what it lost, if that is still free and quotas hold."""
    if not part or not all(is_among(grant, lost) for grant in part):
        return
    if not cluster.pool.is_free(part) or not _is_within_quota(cluster, waiting, used, run, part):
        return
    cluster.pool.reserve(part)
    charge(used, run.project, part, 1)
    lost[:] = [grant for grant in lost if not is_among(grant, part)]


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
