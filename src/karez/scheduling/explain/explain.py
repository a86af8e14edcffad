"""Explanations of why workloads wait: node counts, quotas, resource holders, suggested changes.

Every suggested change was tried on a copy of the pool first.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from karez.core.devices import IN_BYTES, DeviceKind
from karez.core.explanations import Estimate, Explanation, QuotaLine, ResourceHolder, UnfitReason
from karez.core.gangs import GangSpec
from karez.core.identity import Project
from karez.core.units import MILLI
from karez.core.workloads import State, WorkloadId
from karez.scheduling.cluster_state import RunningWorkload, capacity_of
from karez.scheduling.decisions import Action, Start
from karez.scheduling.engine import SchedulingEngine
from karez.scheduling.explain.suggestion_trial import SuggestionContext
from karez.scheduling.explain.suggestions import suggest_changes
from karez.scheduling.placement.capacity import AMOUNTS, SLOTS, Pool
from karez.scheduling.placement.fit_report import FitReport, fit_reports
from karez.scheduling.placement.placement import fits
from karez.scheduling.queue.order import PendingWorkload, SchedulingPolicy
from karez.scheduling.queue.pending_queue import EquivalenceClass
from karez.scheduling.queue.quota import share_of, within_quota
from karez.scheduling.snapshot import Snapshot, engine_from

MAX_HOLDERS = 5
"""Most resource holders that an explanation names, the largest first."""


@dataclass(slots=True, kw_only=True)
class _Context:
    """The cluster after its next decisions, and the explanations made so far."""

    snapshot: Snapshot
    engine: SchedulingEngine
    now: float
    reasons: Mapping[WorkloadId, str]
    first_priority: int
    by_class: dict[tuple[EquivalenceClass, bool], Explanation] = field(default_factory=dict)


def explain(
    snapshot: Snapshot, ident: WorkloadId, *, now: float, policy: SchedulingPolicy | None = None
) -> Explanation | None:
    """Explain why one workload waits; None if it runs or would start with the next decision."""
    return explain_all(snapshot, now=now, only=ident, policy=policy).get(ident)


def explain_all(
    snapshot: Snapshot,
    *,
    now: float,
    only: WorkloadId | None = None,
    policy: SchedulingPolicy | None = None,
) -> Mapping[WorkloadId, Explanation]:
    """Explain why every pending workload waits; a class shares all but its place in the queue."""
    policy = policy or SchedulingPolicy()
    engine = engine_from(snapshot, policy, now)
    decisions = engine.decide(now)
    context = _Context(
        snapshot=snapshot,
        engine=engine,
        now=now,
        reasons=engine.reasons(),
        first_priority=max((waiting.priority for waiting in snapshot.waiting), default=0) + 1,
    )
    queue = sorted(snapshot.waiting, key=lambda w: engine.cluster.sort_key(w, policy))
    waits = [waiting for waiting in queue if waiting.id in context.reasons]
    explanations = {
        waiting.id: _why(context, waiting, ahead)
        for ahead, waiting in enumerate(waits)
        if only in (None, waiting.id)
    }
    for ident, reason in _waits_for_victims(decisions).items():
        if only in (None, ident):
            explanations[ident] = Explanation(
                id=ident, name=ident, state=State.QUEUED, reason=reason
            )
    return explanations


def _waits_for_victims(decisions: Iterable[Action]) -> Mapping[WorkloadId, str]:
    """Reasons of workloads that wait for victims to stop or shrink, with the victims."""
    by: dict[WorkloadId, list[str]] = {}
    for decision in decisions:
        if not isinstance(decision, Start) and decision.by is not None:
            by.setdefault(decision.by, []).append(decision.id)
    return {
        ident: f"it starts as soon as {' and '.join(names)} made room for it"
        for ident, names in by.items()
    }


def _why(context: _Context, waiting: PendingWorkload, ahead: int) -> Explanation:
    key = (context.engine.equivalence_class(waiting), ahead == 0)
    shared = context.by_class.get(key)
    if shared is None:
        shared = context.by_class[key] = _shared(context, waiting, is_first=ahead == 0)
    reason = context.reasons[waiting.id]
    return replace(shared, id=waiting.id, name=waiting.id, reason=reason, ahead=ahead)


def _shared(context: _Context, waiting: PendingWorkload, *, is_first: bool) -> Explanation:
    engine, gang = context.engine, waiting.gang
    runs_s = engine.equivalence_class(waiting)[3]
    until = None if runs_s is None else context.now + runs_s
    trial = SuggestionContext(
        snapshot=context.snapshot,
        engine=engine,
        waiting=waiting,
        priority=None if is_first else context.first_priority,
        until=until,
        now=context.now,
    )
    reports = fit_reports(gang, engine.cluster.pool, until)
    return Explanation(
        id=waiting.id,
        name="",
        state=State.QUEUED,
        reason="",
        hurdles=tuple(_unfit_reason(gang, report, engine.cluster.pool) for report in reports),
        quota=_quota(waiting, context.snapshot.projects, engine.cluster.used),
        holders=_holders(gang, engine.cluster.running.values()),
        starts=_estimate(context, waiting, until),
        changes=suggest_changes(trial),
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
    """Convert an amount to devices, or keep it in bytes for kinds counted in bytes."""
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
    """Largest holders of the kinds that a gang asks for."""
    kinds = {need.kind for need in gang.each} | {r.each[0].kind for r in gang.roles}
    holders = [
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
    return tuple(sorted(holders, key=lambda holder: (-holder.devices, holder.id))[:MAX_HOLDERS])


def _estimate(context: _Context, waiting: PendingWorkload, until: float | None) -> Estimate | None:
    """Estimate when enough workloads have ended; None if that never suffices, or limits bar it."""
    engine, now = context.engine, context.now
    _, barred = within_quota(waiting, engine.cluster.projects, engine.cluster.used)
    if barred or waiting.project in engine.cluster.over_budget:
        return None
    times = [_fits_at(engine, waiting.gang, now, factor, until) for factor in (0.25, 1.0, 4.0)]
    early, middle, late = times
    if early is None or middle is None:
        return _after_maintenance(context, waiting, until)
    return Estimate(early=early, middle=middle, late=late)


def _after_maintenance(
    context: _Context, waiting: PendingWorkload, until: float | None
) -> Estimate | None:
    """Estimate the end of maintenance, if the workload waits for nothing else."""
    ends = sorted(w.ends_at for node in context.snapshot.nodes for w in node.windows)
    if until is None or not ends or not fits(waiting.gang, context.engine.cluster.pool):
        return None
    return Estimate(early=ends[0], middle=ends[len(ends) // 2], late=ends[-1])


def _fits_at(
    engine: SchedulingEngine, gang: GangSpec, now: float, factor: float, until: float | None
) -> float | None:
    """The first end of a running workload after which the gang fits."""
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
