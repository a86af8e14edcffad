"""From decisions of the engine to writes of the store, over as many passes as others need. Pure."""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from karez.core.grants import Grant
from karez.core.workloads import WorkloadId
from karez.scheduling.decisions import Action, Preempt, Resize, Start
from karez.server.controllers.held_devices import HeldDevices, are_free, held_devices
from karez.server.controllers.pending_decisions import (
    RESIZE_S,
    PendingDecisions,
    PendingResize,
    PendingStart,
)
from karez.server.controllers.store_view import StoreView


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPreemption:
    """Ask a running workload to yield. Repeatable."""

    id: WorkloadId


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestResize:
    """Ask a running gang to go on with these grants. Repeatable."""

    id: WorkloadId
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawResize:
    """Take a request for another size back, if the gang has not taken it. Repeatable."""

    id: WorkloadId


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Give a queued workload its devices. Does nothing where it is not queued any more."""

    id: WorkloadId
    grants: tuple[Grant, ...]


Write = RequestPreemption | RequestResize | WithdrawResize | Place


def reconcile(
    view: StoreView, pending: PendingDecisions, decided: Sequence[Action], now: float
) -> tuple[PendingDecisions, tuple[Write, ...]]:
    """What is still pending after this pass, and what has to be written now.

    Args:
        view: The workloads as the store has them.
        pending: Earlier decisions that were not carried out, as `observe` left them.
        decided: What the engine has decided just now.
        now: UTC epoch seconds.
    """
    held = held_devices(grant for run in view.running.values() for grant in run.allocation.grants)
    pending = _with_decided(pending, decided, now)
    pending = replace(pending, starts=_after_who_holds(view, pending, held))
    asked = _due_resizes(view, pending, held.copy(), now)
    pending = replace(pending, resizing={**pending.resizing, **asked})
    places = tuple(_places(view, pending, held))
    placed = {place.id for place in places}
    left = {ident: start for ident, start in pending.starts.items() if ident not in placed}
    writes: list[Write] = [
        # repeated each time, since a workload that was starting does not take the request
        *(RequestPreemption(id=ident) for ident in sorted(pending.preempting)),
        *(RequestResize(id=ident, grants=one.grants) for ident, one in asked.items()),
        *(WithdrawResize(id=i) for i in _withdrawn(pending, decided, now)),
        *places,
    ]
    return replace(pending, starts=left), tuple(writes)


def _with_decided(
    pending: PendingDecisions, decided: Sequence[Action], now: float
) -> PendingDecisions:
    starts, preempting = dict(pending.starts), set(pending.preempting)
    resizing = dict(pending.resizing)
    releasing: dict[WorkloadId, set[WorkloadId]] = {}
    for action in decided:
        match action:
            case Preempt(id=ident, by=by):
                dropped = starts.pop(ident, None)
                if dropped is None:
                    preempting.add(ident)
                # one that never started has made no room: who was to make it for it makes it still
                yields = {ident} if dropped is None else dropped.after
                releasing.setdefault(by or ident, set()).update(yields)
            case Resize(id=ident, grants=grants, by=by):
                until = now + RESIZE_S
                resizing[ident] = PendingResize(grants=grants, until=until, is_asked=False)
                if by is not None:
                    releasing.setdefault(by, set()).add(ident)
            case Start(id=ident, grants=grants):
                after = releasing.get(ident, set()) | ({ident} & preempting)
                starts[ident] = _pending_start(ident, grants, frozenset(after))
    return replace(pending, starts=starts, preempting=frozenset(preempting), resizing=resizing)


def _pending_start(
    ident: WorkloadId, grants: tuple[Grant, ...], after: frozenset[WorkloadId]
) -> PendingStart:
    others = sorted(after - {ident})
    if others:
        makes = "makes" if len(others) == 1 else "make"
        reason = f"{' and '.join(others)} {makes} room for it"
    else:
        reason = "it is being moved" if after else "its devices are given to it"
    return PendingStart(grants=grants, after=after, reason=reason)


def _after_who_holds(
    view: StoreView, pending: PendingDecisions, held: HeldDevices
) -> dict[WorkloadId, PendingStart]:
    """The pending starts; who was asked before to release their devices is waited for too."""
    asked = pending.preempting | pending.resizing.keys()
    starts = dict(pending.starts)
    for ident, start in pending.starts.items():
        if not are_free(start.grants, held):
            after = start.after | _who_holds(view, start.grants, asked)
            starts[ident] = _pending_start(ident, start.grants, after)
    return starts


def _who_holds(
    view: StoreView, grants: Sequence[Grant], among: AbstractSet[WorkloadId]
) -> set[WorkloadId]:
    """The running workloads of `among` that hold something of these devices."""
    asked = held_devices(grants).keys()
    return {
        ident
        for ident in among & view.running.keys()
        if asked & held_devices(view.running[ident].allocation.grants).keys()
    }


def _due_resizes(
    view: StoreView, pending: PendingDecisions, held: HeldDevices, now: float
) -> dict[WorkloadId, PendingResize]:
    """The resizes for which gangs are to be asked now: nobody holds what they are to take."""
    due: dict[WorkloadId, PendingResize] = {}
    for ident, resize in pending.resizing.items():
        run = view.running.get(ident)
        if resize.is_asked or run is None:
            continue
        there = list(run.allocation.grants)
        added = []
        for grant in resize.grants:
            if grant in there:
                there.remove(grant)
            else:
                added.append(grant)
        if are_free(added, held):
            held.update(held_devices(added))
            due[ident] = replace(resize, is_asked=True, until=now + RESIZE_S)
    return due


def _withdrawn(
    pending: PendingDecisions, decided: Sequence[Action], now: float
) -> Iterator[WorkloadId]:
    """Gangs whose request of before holds no longer: not taken in time, or replaced by another."""
    for ident, resize in pending.resizing.items():
        if resize.is_asked and now >= resize.until:
            yield ident
    for action in decided:
        if isinstance(action, Resize) and not pending.resizing[action.id].is_asked:
            yield action.id


def _places(view: StoreView, pending: PendingDecisions, held: HeldDevices) -> Iterator[Place]:
    """The pending starts whose devices have been released."""
    for ident, start in pending.starts.items():
        is_next = ident in view.waiting and not pending.waits_for(start)
        if is_next and are_free(start.grants, held):
            held.update(held_devices(start.grants))
            yield Place(id=ident, grants=start.grants)
