"""Why each of those in line waits: counts, quota arithmetic, who holds what, what would help.

Every change that is proposed was tried on a copy of the pool first.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from karez.core.explanations import Estimate, Explanation, QuotaLine, ResourceHolder, UnfitReason
from karez.core.identity import Project
from karez.core.resources import IN_BYTES, DeviceKind
from karez.core.units import MILLI
from karez.core.workloads import GangSpec, State, WorkloadId
from karez.scheduling.cluster_state import RunningWorkload, capacity_of
from karez.scheduling.decisions import Action, Start
from karez.scheduling.engine import SchedulingEngine
from karez.scheduling.explain.suggestions import SuggestionContext, suggest_changes
from karez.scheduling.placement.capacity import AMOUNTS, SLOTS, Pool
from karez.scheduling.placement.fit_report import FitReport, fit_reports
from karez.scheduling.placement.placement import fits
from karez.scheduling.queue.order import PendingWorkload, SchedulingPolicy
from karez.scheduling.queue.pending_queue import EquivalenceClass
from karez.scheduling.queue.quota import share_of, within_quota
from karez.scheduling.snapshot import Snapshot, engine_from

MAX_HOLDERS = 5
"""How many of those who hold the devices are named, the largest first."""


@dataclass(slots=True, kw_only=True)
class _Context:
    """The cloud after its next decisions, and what was found out of it so far."""

    snapshot: Snapshot
    engine: SchedulingEngine
    now: float
    reasons: Mapping[WorkloadId, str]
    first_priority: int
    by_class: dict[tuple[EquivalenceClass, bool], Explanation] = field(default_factory=dict)


def explain(
    snapshot: Snapshot, ident: WorkloadId, *, now: float, policy: SchedulingPolicy | None = None
) -> Explanation | None:
    """Why one workload waits; None if it does not, or would start with the next decision."""
    return explain_all(snapshot, now=now, only=ident, policy=policy).get(ident)


def explain_all(
    snapshot: Snapshot,
    *,
    now: float,
    only: WorkloadId | None = None,
    policy: SchedulingPolicy | None = None,
) -> Mapping[WorkloadId, Explanation]:
    """Why everything that waits does: workloads of one class share all but their place in line."""
    policy = policy or SchedulingPolicy()
    engine = engine_from(snapshot, policy, now)
    decisions = engine.decide(now)
    seen = _Context(
        snapshot=snapshot,
        engine=engine,
        now=now,
        reasons=engine.reasons(),
        first_priority=max((one.priority for one in snapshot.waiting), default=0) + 1,
    )
    line = sorted(snapshot.waiting, key=lambda one: engine.cluster.sort_key(one, policy))
    waits = [one for one in line if one.id in seen.reasons]
    found = {
        one.id: _why(seen, one, ahead) for ahead, one in enumerate(waits) if only in (None, one.id)
    }
    for ident, reason in _room_is_made(decisions).items():
        if only in (None, ident):
            found[ident] = Explanation(id=ident, name=ident, state=State.QUEUED, reason=reason)
    return found


def _room_is_made(decisions: Iterable[Action]) -> Mapping[WorkloadId, str]:
    """Those for which others are stopped or shrink, and who these are."""
    by: dict[WorkloadId, list[str]] = {}
    for decision in decisions:
        if not isinstance(decision, Start) and decision.by is not None:
            by.setdefault(decision.by, []).append(decision.id)
    return {
        ident: f"it starts as soon as {' and '.join(names)} made room for it"
        for ident, names in by.items()
    }


def _why(seen: _Context, waiting: PendingWorkload, ahead: int) -> Explanation:
    key = (seen.engine.equivalence_class(waiting), ahead == 0)
    shared = seen.by_class.get(key)
    if shared is None:
        shared = seen.by_class[key] = _shared(seen, waiting, is_first=ahead == 0)
    reason = seen.reasons[waiting.id]
    return replace(shared, id=waiting.id, name=waiting.id, reason=reason, ahead=ahead)


def _shared(seen: _Context, waiting: PendingWorkload, *, is_first: bool) -> Explanation:
    engine, gang = seen.engine, waiting.gang
    runs_s = engine.equivalence_class(waiting)[3]
    until = None if runs_s is None else seen.now + runs_s
    situation = SuggestionContext(
        snapshot=seen.snapshot,
        engine=engine,
        waiting=waiting,
        priority=None if is_first else seen.first_priority,
        until=until,
        now=seen.now,
    )
    fit = fit_reports(gang, engine.cluster.pool, until)
    return Explanation(
        id=waiting.id,
        name="",
        state=State.QUEUED,
        reason="",
        hurdles=tuple(_unfit_reason(gang, one, engine.cluster.pool) for one in fit),
        quota=_quota(waiting, seen.snapshot.projects, engine.cluster.used),
        holders=_holders(gang, engine.cluster.running.values()),
        starts=_estimate(seen, waiting, until),
        changes=suggest_changes(situation),
    )


def _unfit_reason(gang: GangSpec, fit: FitReport, pool: Pool) -> UnfitReason:
    need, sizes = fit.need, capacity_of(pool)
    arrays, shape = pool.inventory.arrays, pool.shape(need)
    if need.kind in SLOTS:
        right = (shape.models >> arrays.model) & 1 == 1
        free = int(arrays.free[right].sum())
    else:
        free = int(arrays.bulk[:, AMOUNTS.index(need.kind)].sum())
    of_gang = any(fit.need is each for each in gang.each)
    roles = [role.workers for role in gang.roles if any(need is each for each in role.each)]
    return UnfitReason(
        asked=need.show(),
        workers=fit.workers,
        needed=gang.min if of_gang or not roles else roles[0],
        nodes={**fit.nodes, **pool.unavailable},
        devices_free=in_units(need.kind, free),
        devices=in_units(need.kind, sizes.get(need.kind, 0)),
    )


def in_units(kind: DeviceKind, amount: int) -> float:
    """Devices, or bytes of what is counted in bytes."""
    return float(amount) if kind in IN_BYTES else amount / MILLI


def _quota(
    waiting: PendingWorkload,
    projects: Mapping[str, Project],
    used: Mapping[tuple[str, DeviceKind], int],
) -> tuple[QuotaLine, ...]:
    lines: list[QuotaLine] = []
    asked: dict[DeviceKind, int] = {}
    for need in waiting.gang.each:
        for kind, amount in need.amounts.items():
            asked.setdefault(kind, amount * waiting.gang.min)
    for role in waiting.gang.roles:
        for kind, amount in role.each[0].amounts.items():
            asked[kind] = asked.get(kind, 0) + amount * role.workers
    for kind, amount in asked.items():
        share = share_of(waiting.project, kind, projects, used)
        if share.room is None:
            continue
        guarantee = None if share.guarantee is None else in_units(kind, share.guarantee)
        lines.append(
            QuotaLine(
                project=waiting.project,
                kind=kind,
                limit=in_units(kind, share.held + share.room),
                held=in_units(kind, share.held),
                asked=in_units(kind, amount),
                guarantee=guarantee,
            )
        )
    return tuple(lines)


def _holders(gang: GangSpec, running: Iterable[RunningWorkload]) -> tuple[ResourceHolder, ...]:
    """Who holds most of the kinds that it is about."""
    kinds = {need.kind for need in gang.each} | {r.each[0].kind for r in gang.roles}
    found = [
        ResourceHolder(
            id=run.id,
            project=run.project,
            kind=kind,
            devices=in_units(kind, amount),
            since=run.started_at,
        )
        for run in running
        for kind in kinds
        if (amount := sum(grant.amounts.get(kind, 0) for grant in run.grants))
    ]
    return tuple(sorted(found, key=lambda one: (-one.devices, one.id))[:MAX_HOLDERS])


def _estimate(seen: _Context, waiting: PendingWorkload, until: float | None) -> Estimate | None:
    """When enough has ended for it; None where all that runs would not be enough, or quota bars."""
    engine, now = seen.engine, seen.now
    _, barred = within_quota(waiting, engine.cluster.projects, engine.cluster.used)
    if barred:
        return None
    times = [_fits_at(engine, waiting.gang, now, factor, until) for factor in (0.25, 1.0, 4.0)]
    early, middle, late = times
    if early is None or middle is None:
        return _after_maintenance(seen, waiting, until)
    return Estimate(early=early, middle=middle, late=late)


def _after_maintenance(
    seen: _Context, waiting: PendingWorkload, until: float | None
) -> Estimate | None:
    """When the maintenance is over that it would run into, if that is all that bars it."""
    ends = sorted(w.ends_at for node in seen.snapshot.nodes for w in node.windows)
    if until is None or not ends or not fits(waiting.gang, seen.engine.cluster.pool):
        return None
    return Estimate(early=ends[0], middle=ends[len(ends) // 2], late=ends[-1])


def _fits_at(
    engine: SchedulingEngine, gang: GangSpec, now: float, factor: float, until: float | None
) -> float | None:
    """The first of the running workloads' ends after which the gang fits."""
    ends = sorted((_end(run, now, factor), run.id) for run in engine.cluster.running.values())
    pool = engine.cluster.pool.fork()
    if fits(gang, pool, until):
        return now
    for at, ident in ends:
        pool.release(engine.cluster.running[ident].grants)
        if fits(gang, pool, until):
            return at
    return None


def _end(run: RunningWorkload, now: float, factor: float) -> float:
    guess = now + factor * max(1.0, now - run.started_at)
    return guess if run.ends_by is None else min(guess, max(now, run.ends_by))
