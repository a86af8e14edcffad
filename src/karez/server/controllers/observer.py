"""Differences between what the store has and what the scheduling engine counts. Pure.

The engine stays in memory between passes. Each pass hands it a ClusterDelta: what was released,
ended, withdrawn, started or submitted since the last one. Where there is no engine yet, the delta
states the whole cluster, as an engine would count it that had made the pending decisions itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from karez.core.grants import Grant
from karez.core.nodes import Node, NodeState
from karez.core.workloads import WorkloadId
from karez.scheduling.cluster_state import RunningWorkload
from karez.scheduling.decision_log import ClusterDelta
from karez.scheduling.engine import SchedulingEngine
from karez.scheduling.queue.order import PendingWorkload
from karez.scheduling.snapshot import AllocatedWorkload, to_running
from karez.scheduling.state_changes import as_started
from karez.server.controllers.held_devices import are_free, held_devices
from karez.server.controllers.pending_decisions import (
    GRACE_S,
    RESIZE_S,
    PendingDecisions,
    PendingStart,
    Reservation,
)
from karez.server.controllers.store_view import StoreView


def observe(
    engine: SchedulingEngine,
    pending: PendingDecisions,
    view: StoreView,
    nodes: Sequence[Node],
    now: float,
) -> tuple[PendingDecisions, ClusterDelta]:
    """What is still pending by what the store says, and what the engine has to be told.

    A start on a node that is not ready any more, or on devices that nobody will release, is given
    up: the engine decides anew. Nodes and projects are the caller's to add to the delta.
    """
    preempted = pending.preempting - view.running.keys()
    kept, released = _reservations(pending, view, now)
    pending = replace(pending, preempting=pending.preempting - preempted, reserved=kept)
    pending = _settle_resizes(pending, view, now)
    pending = replace(pending, starts=_possible_starts(pending, view, nodes))
    pending, ended = _settle(engine, pending, view)
    started = _newly_running(engine, pending, view, ended)
    withdrawn = _withdrawn(engine, view, {run.id for run in started}, preempted)
    delta = ClusterDelta(
        at=now,
        released=released,
        ended=ended,
        withdrawn=withdrawn,
        running=started,
        arrived=(
            *_arrived(engine, view, set(withdrawn), ended),
            *_queued_again(engine, pending, view, ended, now),
        ),
    )
    return pending, delta


def still_owed(
    pending: PendingDecisions, view: StoreView, nodes: Sequence[Node], now: float
) -> PendingDecisions:
    """What an earlier control left pending and still can be carried out.

    Gangs that were asked for another size have time for it again. A start that cannot be carried
    out is given up, as in `observe`; who was asked to make room for it makes room.
    """
    resizing = {
        ident: replace(resize, until=now + RESIZE_S)
        for ident, resize in pending.resizing.items()
        if ident in view.running and view.running[ident].allocation.grants != resize.grants
    }
    preempting = frozenset(pending.preempting & view.running.keys())
    reserved, _ = _reservations(pending, view, now)
    kept = replace(pending, preempting=preempting, resizing=resizing, reserved=reserved)
    starts = {
        ident: start
        for ident, start in _possible_starts(kept, view, nodes).items()
        if ident in view.waiting or ident in preempting
    }
    return replace(kept, starts=starts)


def whole_state(pending: PendingDecisions, view: StoreView, now: float) -> ClusterDelta:
    """The delta of the whole cluster for an engine that knows nothing, with what is pending."""
    preempted = {
        ident: _as_preempted(run, now)
        for ident, run in view.running.items()
        if ident in pending.preempting and run.waiting is not None
    }
    queued = {**view.waiting, **preempted}
    running = [
        _as_counted(ident, run, pending)
        for ident, run in view.running.items()
        if ident not in preempted
    ]
    running += [
        as_started(queued[ident], start.grants, now)
        for ident, start in pending.starts.items()
        if ident in queued
    ]
    return ClusterDelta(
        at=now,
        is_reset=True,
        reserved=tuple(grant for one in pending.reserved for grant in one.grants),
        running=tuple(running),
        arrived=tuple(one for ident, one in queued.items() if ident not in pending.starts),
    )


def _possible_starts(
    pending: PendingDecisions, view: StoreView, nodes: Sequence[Node]
) -> Mapping[WorkloadId, PendingStart]:
    """The pending starts on ready nodes, whose devices are free once all have done as asked."""
    if not pending.starts:
        return pending.starts
    ready = {node.id for node in nodes if node.state == NodeState.READY}
    after = [grant for grants in _grants_after(pending, view) for grant in grants]
    held = held_devices([*after, *(grant for one in pending.reserved for grant in one.grants)])
    possible = {}
    for ident, start in pending.starts.items():
        is_ready = all(grant.node in ready for grant in start.grants)
        if is_ready and are_free(start.grants, held):
            held.update(held_devices(start.grants))
            possible[ident] = start
    return possible


def _grants_after(pending: PendingDecisions, view: StoreView) -> Iterator[tuple[Grant, ...]]:
    """What running workloads will hold once they have done what they were asked to."""
    for ident, run in view.running.items():
        if ident not in pending.preempting:
            resize = pending.resizing.get(ident)
            yield run.allocation.grants if resize is None else resize.grants


def _as_preempted(run: AllocatedWorkload, now: float) -> PendingWorkload:
    """A preempted workload as it will be in the queue."""
    counted = to_running(run)
    waiting = counted.as_pending
    return replace(waiting, done_s=counted.done_s(now) if waiting.resumes else 0.0)


def _as_counted(
    ident: WorkloadId, run: AllocatedWorkload, pending: PendingDecisions
) -> RunningWorkload:
    """A running workload as the engine counts it: with the size that it was asked to take."""
    counted = to_running(run)
    if ident in pending.inelastic:
        counted = _as_inelastic(counted)
    resize = pending.resizing.get(ident)
    return counted if resize is None else replace(counted, grants=resize.grants)


def _reservations(
    pending: PendingDecisions, view: StoreView, now: float
) -> tuple[tuple[Reservation, ...], tuple[Grant, ...]]:
    """The reservations that stand, and the grants of those that are used or have expired."""
    held = {grant for run in view.running.values() for grant in run.allocation.grants}
    kept = tuple(
        one for one in pending.reserved if now < one.until and not held.issuperset(one.grants)
    )
    released = (one.grants for one in pending.reserved if one not in kept)
    return kept, tuple(grant for grants in released for grant in grants)


def _settle_resizes(pending: PendingDecisions, view: StoreView, now: float) -> PendingDecisions:
    """Forget resizes that were made. A gang that has not made one counts as inelastic from then."""
    resizing, inelastic = {}, set(pending.inelastic)
    for ident, resize in pending.resizing.items():
        run = view.running.get(ident)
        if run is None or run.allocation.grants == resize.grants:
            continue
        if now < resize.until + GRACE_S:
            resizing[ident] = resize
        elif resize.is_asked:
            inelastic.add(ident)
    return replace(pending, resizing=resizing, inelastic=frozenset(inelastic))


def _settle(
    engine: SchedulingEngine, pending: PendingDecisions, view: StoreView
) -> tuple[PendingDecisions, tuple[WorkloadId, ...]]:
    """The workloads that do not run, and will not run, as the engine counts them."""
    starts = dict(pending.starts)
    present = view.waiting.keys() | pending.preempting
    ended = []
    for ident, run in engine.cluster.running.items():
        actual = view.running.get(ident)
        if actual is None:
            if ident not in starts or ident not in present:
                ended.append(ident)
                starts.pop(ident, None)
            continue
        resize = pending.resizing.get(ident)
        is_asked = resize is not None and resize.grants == run.grants
        is_so = actual.allocation.grants == run.grants and ident not in pending.preempting
        if not (is_so or is_asked or ident in starts):
            ended.append(ident)
    return replace(pending, starts=starts), tuple(ended)


def _newly_running(
    engine: SchedulingEngine,
    pending: PendingDecisions,
    view: StoreView,
    ended: tuple[WorkloadId, ...],
) -> tuple[RunningWorkload, ...]:
    """Workloads that run and that the engine does not count, or counts with other grants."""
    counted = engine.cluster.running.keys() - set(ended)
    return tuple(
        _as_inelastic(to_running(actual)) if ident in pending.inelastic else to_running(actual)
        for ident, actual in view.running.items()
        if ident not in counted and ident not in pending.preempting
    )


def _withdrawn(
    engine: SchedulingEngine,
    view: StoreView,
    started: AbstractSet[WorkloadId],
    preempted: AbstractSet[WorkloadId],
) -> tuple[WorkloadId, ...]:
    """Workloads to take out of the engine's queue: gone, started, or changed."""
    return tuple(
        ident
        for ident, queued in engine.pending.items()
        if ident in started
        or (ident not in view.running and ident not in view.waiting)
        or (ident in preempted and not _matches_record(view.waiting.get(ident, queued), queued))
    )


def _arrived(
    engine: SchedulingEngine,
    view: StoreView,
    withdrawn: AbstractSet[WorkloadId],
    ended: tuple[WorkloadId, ...],
) -> tuple[PendingWorkload, ...]:
    """Queued workloads that the engine does not have."""
    queue, running = engine.pending, engine.cluster.running
    return tuple(
        waiting
        for ident, waiting in view.waiting.items()
        if (ident not in queue or ident in withdrawn) and (ident not in running or ident in ended)
    )


def _queued_again(
    engine: SchedulingEngine,
    pending: PendingDecisions,
    view: StoreView,
    ended: tuple[WorkloadId, ...],
    now: float,
) -> Iterator[PendingWorkload]:
    """Workloads that yield and whose next start was given up: they keep their place in the queue.

    An engine that knows nothing counts them so too (`whole_state`).
    """
    for ident in sorted(pending.preempting & set(ended)):
        run = view.running[ident]
        if run.waiting is not None and ident not in engine.pending:
            yield _as_preempted(run, now)


def _as_inelastic(run: RunningWorkload) -> RunningWorkload:
    """The same workload, as one that never changes its size."""
    waiting = run.as_pending
    return replace(run, waiting=replace(waiting, gang=replace(waiting.gang, max=None)))


def _matches_record(waiting: PendingWorkload, queued: PendingWorkload) -> bool:
    """Whether a preempted workload was requeued as the engine has it: run time to the second."""
    near = abs(waiting.done_s - queued.done_s) < 1.0
    return near and replace(waiting, done_s=0.0, order=0) == replace(queued, done_s=0.0, order=0)
