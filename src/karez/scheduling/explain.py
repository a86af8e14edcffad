"""Why each of those in line waits: counts, quota arithmetic, who holds what, what would help.

Every change that is proposed was tried on a copy of the pool first.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from karez.core.identity import Project
from karez.core.reasons import Estimate, Holder, Hurdle, QuotaLine, Why
from karez.core.resources import DeviceKind, Need
from karez.core.units import MILLI
from karez.core.workloads import GangSpec, State, WorkloadId
from karez.scheduling.desk import Class, Desk, Run, class_of
from karez.scheduling.inventory import CPU
from karez.scheduling.line import Rules, Waiting
from karez.scheduling.place import fits, hurdle
from karez.scheduling.plan import Snapshot, desk_of
from karez.scheduling.pool import SLOTS, Pool
from karez.scheduling.quota import share_of, within_quota
from karez.scheduling.remedy import Situation, remedies

HOLDERS = 5
"""How many of those who hold the devices are named, the largest first."""


@dataclass(slots=True, kw_only=True)
class _Desk:
    """The cloud after its next decisions, and what was found out of it so far."""

    snapshot: Snapshot
    desk: Desk
    now: float
    reasons: Mapping[WorkloadId, str]
    first_priority: int
    by_class: dict[tuple[Class, bool], Why] = field(default_factory=dict)


def explain(snapshot: Snapshot, ident: WorkloadId, *, now: float) -> Why | None:
    """Why one workload waits; None if it does not, or would start with the next decision."""
    return explain_all(snapshot, now=now, only=ident).get(ident)


def explain_all(
    snapshot: Snapshot, *, now: float, only: WorkloadId | None = None
) -> Mapping[WorkloadId, Why]:
    """Why everything that waits does: workloads of one class share all but their place in line."""
    rules = Rules()
    desk = desk_of(snapshot, rules)
    desk.decide(now)
    seen = _Desk(
        snapshot=snapshot,
        desk=desk,
        now=now,
        reasons=desk.reasons(),
        first_priority=max((one.priority for one in snapshot.waiting), default=0) + 1,
    )
    line = sorted(snapshot.waiting, key=lambda one: one.rank(rules))
    waits = [one for one in line if one.id in seen.reasons]
    return {
        one.id: _why(seen, one, ahead) for ahead, one in enumerate(waits) if only in (None, one.id)
    }


def _why(seen: _Desk, waiting: Waiting, ahead: int) -> Why:
    key = (class_of(waiting), ahead == 0)
    shared = seen.by_class.get(key)
    if shared is None:
        shared = seen.by_class[key] = _shared(seen, waiting, is_first=ahead == 0)
    reason = seen.reasons[waiting.id]
    return replace(shared, id=waiting.id, name=waiting.id, reason=reason, ahead=ahead)


def _shared(seen: _Desk, waiting: Waiting, *, is_first: bool) -> Why:
    desk, gang = seen.desk, waiting.gang
    situation = Situation(
        snapshot=seen.snapshot,
        desk=desk,
        waiting=waiting,
        priority=None if is_first else seen.first_priority,
    )
    return Why(
        id=waiting.id,
        name="",
        state=State.QUEUED,
        reason="",
        hurdles=tuple(_hurdle(gang, need, desk.pool) for need in gang.each),
        quota=_quota(waiting, seen.snapshot.projects, desk.used),
        holders=_holders(gang, desk.running.values()),
        starts=_estimate(desk, waiting, seen.now),
        changes=remedies(situation),
    )


def _hurdle(gang: GangSpec, need: Need, pool: Pool) -> Hurdle:
    fit = hurdle(gang, need, pool)
    nodes = {
        f"no {need.kind} devices": len(pool.places) - fit.having,
        f"too few free {need.kind}": fit.too_few,
        "too little free memory": fit.no_memory,
        **{str(state): count for state, count in pool.shut.items()},
    }
    arrays, shape = pool.inventory.arrays, pool.shape(need)
    if need.kind in SLOTS:
        right = (shape.models >> arrays.model) & 1 == 1
        free, size = int(arrays.free[right].sum()), int(pool.inventory.size[right].sum())
    else:
        free, size = int(arrays.bulk[:, CPU].sum()), int(pool.inventory.bulk_size[:, CPU].sum())
    return Hurdle(
        asked=need.show(),
        workers=fit.workers,
        needed=gang.min,
        nodes={reason: count for reason, count in nodes.items() if count},
        devices_free=free / MILLI,
        devices=size / MILLI,
    )


def _quota(
    waiting: Waiting,
    projects: Mapping[str, Project],
    used: Mapping[tuple[str, DeviceKind], int],
) -> tuple[QuotaLine, ...]:
    lines: list[QuotaLine] = []
    for need in waiting.gang.each:
        share = share_of(waiting.project, need.kind, projects, used)
        if share.room is None:
            continue
        lines.append(
            QuotaLine(
                project=waiting.project,
                kind=need.kind,
                limit=(share.held + share.room) / MILLI,
                held=share.held / MILLI,
                asked=need.milli * waiting.gang.min / MILLI,
                guarantee=None if share.guarantee is None else share.guarantee / MILLI,
            )
        )
    return tuple(lines)


def _holders(gang: GangSpec, running: Iterable[Run]) -> tuple[Holder, ...]:
    kinds = {need.kind for need in gang.each}
    found = [
        Holder(
            id=run.id,
            project=run.project,
            kind=kind,
            devices=milli / MILLI,
            since=run.started_at,
        )
        for run in running
        for kind in kinds
        if (milli := sum(grant.milli for grant in run.grants if grant.kind == kind))
    ]
    return tuple(sorted(found, key=lambda one: (-one.devices, one.id))[:HOLDERS])


def _estimate(desk: Desk, waiting: Waiting, now: float) -> Estimate | None:
    """When enough has ended for it; None where all that runs would not be enough, or quota bars."""
    _, barred = within_quota(waiting, desk.projects, desk.used)
    if barred:
        return None
    times = [_opens_at(desk, waiting.gang, now, factor) for factor in (0.25, 1.0, 4.0)]
    early, middle, late = times
    if early is None or middle is None:
        return None
    return Estimate(early=early, middle=middle, late=late)


def _opens_at(desk: Desk, gang: GangSpec, now: float, factor: float) -> float | None:
    """The first of the running workloads' ends after which the gang fits."""
    ends = sorted((_end(run, now, factor), run.id) for run in desk.running.values())
    pool = desk.pool.fork()
    if fits(gang, pool):
        return now
    for at, ident in ends:
        pool.give_back(desk.running[ident].grants)
        if fits(gang, pool):
            return at
    return None


def _end(run: Run, now: float, factor: float) -> float:
    guess = now + factor * max(1.0, now - run.started_at)
    return guess if run.ends_by is None else min(guess, max(now, run.ends_by))
