"""What could make room for a workload, what that would cost, and whether it is worth it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from karez.core.devices import DeviceKind
from karez.core.grants import Grant
from karez.core.resource_requests import ResourceRequest
from karez.core.workloads import WorkloadId
from karez.scheduling.cluster_state import ClusterState, RunningWorkload
from karez.scheduling.placement.capacity import SLOTS
from karez.scheduling.placement.placement import fits, place_gang
from karez.scheduling.queue.order import (
    AGING_S_PER_DOUBLING,
    PendingWorkload,
    SchedulingPolicy,
    SortKey,
)
from karez.scheduling.queue.quota import is_within, share_of, within_quota


@dataclass(frozen=True, slots=True, kw_only=True)
class PreemptionCandidate:
    """Something that runs could give up these grants."""

    run: RunningWorkload
    releases: tuple[Grant, ...]
    is_preemption: bool
    """Else it goes on with fewer workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreemptionPlan:
    """What a workload gets, and what each of the others keeps for it: nothing, or fewer workers."""

    grants: tuple[Grant, ...]
    keeps: dict[WorkloadId, tuple[Grant, ...]]


def candidates(
    cluster: ClusterState, waiting: PendingWorkload, policy: SchedulingPolicy, now: float
) -> list[PreemptionCandidate]:
    """What may be taken for this workload: what others only grew into, then who is furthest back.

    Whoever is stopped would come later in line by a whole doubling, or has a lower priority; and
    has longer to go than the newcomer, by more than the stop costs.
    """
    found = [
        PreemptionCandidate(run=run, releases=tuple(more), is_preemption=False)
        for run in sorted((cluster.running[i] for i in cluster.elastic), key=lambda run: run.id)
        if policy.elastic
        and run.id not in cluster.just_started
        and (more := _surplus_workers(run, wanted=True))
    ]
    priority, place_in_line, _, _ = cluster.sort_key(waiting, policy)
    behind: list[tuple[SortKey, RunningWorkload]] = []
    for run in cluster.running.values():
        if (
            run.waiting is None
            or not (run.can_stop or policy.elastic)
            or run.id in cluster.just_started
        ):
            continue
        done_s = run.done_s(now)
        rank = cluster.sort_key(run.waiting, policy, done_s)
        is_behind = rank[0] > priority or rank[1] > place_in_line + AGING_S_PER_DOUBLING
        gain_s = run.waiting.remaining_s(done_s) - waiting.remaining_s(waiting.done_s)
        pays = gain_s > run.stop_cost_s(now) or rank[0] > priority
        if rank[0] >= priority and is_behind and pays:
            behind.append((rank, run))
    behind.sort(key=lambda pair: pair[0], reverse=True)
    for _, run in behind:
        over = _surplus_workers(run, wanted=True) if policy.elastic else []
        more = _surplus_workers(run, wanted=False) if policy.elastic else []
        less = [grant for grant in more if not _is_in(grant, over)]
        if less:
            found.append(PreemptionCandidate(run=run, releases=tuple(less), is_preemption=False))
        if run.can_stop and policy.preempts:
            rest = tuple(grant for grant in run.grants if not _is_in(grant, more))
            found.append(PreemptionCandidate(run=run, releases=rest, is_preemption=True))
    return found if _may_suffice(cluster, waiting, found) else []


def _surplus_workers(run: RunningWorkload, *, wanted: bool) -> list[Grant]:
    """Its last workers, beyond what it wants or beyond the fewest it goes on with."""
    if run.waiting is None or run.waiting.gang.max is None:
        return []  # only who says how large it may grow changes its size while it runs
    gang = run.waiting.gang
    workers = run.workers
    return list(workers[gang.want if wanted else gang.min :])


def _is_in(grant: Grant, grants: Sequence[Grant]) -> bool:
    return any(grant is other for other in grants)


def _may_suffice(
    cluster: ClusterState, waiting: PendingWorkload, found: Sequence[PreemptionCandidate]
) -> bool:
    """Whether all of it together could be enough: a look that costs little."""
    gang = waiting.gang
    if not found or not all(need.kind in SLOTS for need in gang.each):
        return bool(found)
    least = min(need.milli for need in gang.each) * gang.min
    gives = sum(grant.milli for option in found for grant in option.releases)
    return cluster.pool.inventory.free_milli + gives >= least


def borrowers(
    cluster: ClusterState, waiting: PendingWorkload, now: float
) -> list[PreemptionCandidate]:
    """Who holds what this workload's project lent: the cheapest to stop first.

    A guarantee is a right: what it costs the borrower is not weighed against the owner's gain.
    """
    owner = cluster.projects.get(waiting.project)
    kinds = {kind for need in waiting.gang.each for kind in need.amounts}
    if owner is None:
        return []
    found = []
    for run in cluster.running.values():
        other = cluster.projects.get(run.project)
        if other is None or other.cohort != owner.cohort or run.project == owner.name:
            continue
        over = any(
            cluster.used.get((run.project, kind), 0) > other.guarantee.get(kind, 0)
            and any(kind in grant.amounts for grant in run.grants)
            for kind in kinds
        )
        if over and run.can_stop and run.id not in cluster.just_started:
            found.append(PreemptionCandidate(run=run, releases=run.grants, is_preemption=True))
    return sorted(found, key=lambda option: (option.run.stop_cost_device_s(now), option.run.id))


def reclaimable(cluster: ClusterState, waiting: PendingWorkload) -> PendingWorkload | None:
    """The workload with only what its project's guarantee entitles it to; None: to nothing.

    So whoever takes back what it lent never becomes a borrower by that.
    """
    found: list[tuple[int, ResourceRequest]] = []
    for need in waiting.gang.each:
        rooms = []
        for kind, amount in need.amounts.items():
            share = share_of(waiting.project, kind, cluster.projects, cluster.used)
            if share.guarantee:
                rooms.append((share.guarantee - share.held) // amount)
        if rooms and min(rooms) >= waiting.gang.min:
            found.append((min(rooms), need))
    if not found:
        return None
    want = min(waiting.gang.want, *(room for room, _ in found))
    each = tuple(need for _, need in found)
    return replace(waiting, gang=replace(waiting.gang, each=each, want=want, spares=0))


def find_victims(
    cluster: ClusterState,
    waiting: PendingWorkload,
    found: Iterable[PreemptionCandidate],
    until: float | None,
    now: float,
) -> PreemptionPlan | None:
    """Take option by option until the workload has its places; then give back what is not needed.

    None, and nothing changed, if all together is not enough.
    """
    pool, used, taken = cluster.pool, dict(cluster.used), list[PreemptionCandidate]()
    grants: tuple[Grant, ...] | None = None
    for option in found:
        pool.release(option.releases)
        taken.append(option)
        for grant in option.releases:
            for kind, amount in grant.amounts.items():
                used[option.run.project, kind] -= amount
        gang, barred = within_quota(waiting, cluster.projects, used)
        if not barred and fits(gang, pool, until):
            grants = place_gang(gang, pool, until)
            if grants is not None:
                break
    if grants is None:
        for option in taken:
            pool.reserve(option.releases)
        return None
    return PreemptionPlan(grants=grants, keeps=_reprieve(cluster, waiting, taken, grants, now))


def rollback(cluster: ClusterState, room: PreemptionPlan) -> None:
    """As it was before room was made."""
    cluster.pool.release(room.grants)
    for ident, keeps in room.keeps.items():
        run = cluster.running[ident]
        cluster.pool.reserve([grant for grant in run.grants if not _is_in(grant, keeps)])


def _reprieve(
    cluster: ClusterState,
    waiting: PendingWorkload,
    taken: Sequence[PreemptionCandidate],
    grants: Sequence[Grant],
    now: float,
) -> dict[WorkloadId, tuple[Grant, ...]]:
    """Whose devices are not needed after all goes on, the dearest first; what the others keep."""
    pool = cluster.pool
    gone: dict[WorkloadId, list[Grant]] = {}
    used = dict(cluster.used)
    for grant in grants:
        _charge(used, waiting.project, grant, 1)
    for option in taken:
        gone.setdefault(option.run.id, []).extend(option.releases)
        for grant in option.releases:
            _charge(used, option.run.project, grant, -1)
    for option in sorted(
        taken, key=lambda one: (one.is_preemption, one.run.stop_cost_device_s(now)), reverse=True
    ):
        run, lost = option.run, gone[option.run.id]
        stopped = any(one.is_preemption and one.run is run for one in taken)
        parts = [tuple(lost)] if stopped else [(grant,) for grant in option.releases]
        for part in parts:
            if part and all(_is_in(g, lost) for g in part) and pool.is_free(part):
                if not _stays_within_quota(cluster, waiting, used, run, part):
                    continue
                pool.reserve(part)
                for grant in part:
                    _charge(used, run.project, grant, 1)
                lost[:] = [grant for grant in lost if not _is_in(grant, part)]
    return {
        ident: tuple(g for g in cluster.running[ident].grants if not _is_in(g, lost))
        for ident, lost in gone.items()
        if lost
    }


def _charge(used: dict[tuple[str, DeviceKind], int], project: str, grant: Grant, sign: int) -> None:
    for kind, amount in grant.amounts.items():
        used[project, kind] = used.get((project, kind), 0) + sign * amount


def _stays_within_quota(
    cluster: ClusterState,
    waiting: PendingWorkload,
    used: dict[tuple[str, DeviceKind], int],
    run: RunningWorkload,
    part: Sequence[Grant],
) -> bool:
    """Whether quotas still hold if a run keeps this after all."""
    after = dict(used)
    for grant in part:
        _charge(after, run.project, grant, 1)
    kinds = {kind for grant in part for kind in grant.amounts}
    return all(
        is_within(name, kind, cluster.projects, after)
        or not is_within(name, kind, cluster.projects, cluster.used)  # it was over before
        for name in (run.project, waiting.project)
        for kind in kinds
    )
