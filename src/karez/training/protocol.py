"""How a gang starts, trains and heals: a pure state machine. Events in, commands out.

A *generation* is one life of the process group. Whatever goes wrong ends the generation: the
survivors leave their collectives and say which steps they can restore, the lost ranks are started
again, and once everybody waits, all go on from the newest step that everybody can restore. A
message of an older generation is ignored. No rank is special.
"""

from collections.abc import Mapping
from dataclasses import replace

from karez.core.resources import NodeId
from karez.core.workloads import EndReason
from karez.training.gang import (
    RUNGS,
    SOURCES,
    Command,
    Committed,
    End,
    Event,
    Exited,
    Fault,
    FindPlaces,
    Finished,
    Gang,
    Go,
    Halt,
    Kill,
    Leave,
    Moved,
    NodeGone,
    Phase,
    Rank,
    Resized,
    Resumed,
    Shrunk,
    Spawn,
    Started,
    Stood,
    Stumbled,
    Tick,
    WriteReceipt,
)


def begin(gang: Gang) -> tuple[Command, ...]:
    """The commands that start a new gang."""
    return tuple(Spawn(rank=n, node=rank.node, life=rank.life) for n, rank in gang.active)


def adopt(gang: Gang, *, together: bool, now: float) -> tuple[Gang, tuple[Command, ...]]:
    """Take over a gang whose foreman was lost, from what its processes last said.

    Args:
        gang: As found; ranks whose process has ended are not `alive`.
        together: Whether all ranks work in the gang's generation right now.
        now: UTC epoch seconds.
    """
    dead = tuple(n for n, rank in gang.active if not rank.alive)
    best = min(rank.committed for _, rank in gang.active)
    gang = replace(gang, phase=Phase.RUNNING, since=now, best=best)
    if not gang.is_session or (together and not dead):
        return gang, ()
    cause = f"rank {dead[0]} ended while no control was there" if dead else "control was restarted"
    return _lose(gang, dead, cause, "in-place" if dead else "retry", now)


def advance(gang: Gang, event: Event, now: float) -> tuple[Gang, tuple[Command, ...]]:  # noqa: C901 - one row per event
    """The next state, and what to do. Events about other lives or generations change nothing."""
    if gang.phase in (Phase.DONE, Phase.FAILED):
        return gang, ()
    match event:
        case Started(rank=number, life=life) if _is(gang, number, life):
            return _set(gang, number, alive=True), ()
        case Stood() if _is(gang, event.rank, event.life):
            return _stood(gang, event, now)
        case Resumed(generation=generation) if generation == gang.generation:
            return _resumed(gang, now), ()
        case Committed(generation=generation) if generation == gang.generation and (
            event.rank < len(gang.ranks)
        ):
            return _committed(gang, event, now)
        case Stumbled(generation=generation) if generation == gang.generation:
            return _stumbled(gang, event, now), ()
        case Finished(rank=number, life=life, generation=born) if (
            _is(gang, number, life) and born == gang.generation
        ):
            return _finished(_set(gang, number, finished=True), now)
        case Exited() if _is(gang, event.rank, event.life):
            return _exited(gang, event, now)
        case NodeGone(node=node):
            return _node_gone(gang, node, now)
        case Moved(nodes=nodes) if gang.phase == Phase.PLACING:
            return _moved(gang, nodes, now)
        case Shrunk(keep=keep) if gang.phase == Phase.PLACING:
            return _shrunk(gang, keep, now)
        case Resized() if gang.phase == Phase.RUNNING and gang.is_session:
            return _resized(gang, event, now)
        case Tick():
            return _tick(gang, now)
        case _:
            return gang, ()


def _is(gang: Gang, number: int, life: int) -> bool:
    if not 0 <= number < len(gang.ranks):
        return False
    return gang.ranks[number].life == life and not gang.ranks[number].retired


def _set(gang: Gang, number: int, **changes: object) -> Gang:
    ranks = list(gang.ranks)
    ranks[number] = replace(ranks[number], **changes)  # type: ignore[arg-type]  # Rank's fields
    return replace(gang, ranks=tuple(ranks))


def _stood(gang: Gang, event: Stood, now: float) -> tuple[Gang, tuple[Command, ...]]:
    gang = replace(_set(gang, event.rank, alive=True, settled=True), is_session=True)
    if event.generation not in (0, gang.generation):
        return gang, ()
    if gang.phase not in (Phase.QUIESCING, Phase.PLACING):
        return gang, ()
    order = sorted(event.steps)
    sources = tuple(event.steps[step] for step in order)
    gang = _set(gang, event.rank, standing=True, steps=tuple(order), sources=sources)
    return _go_if_ready(gang, now)


def _go_if_ready(gang: Gang, now: float) -> tuple[Gang, tuple[Command, ...]]:
    if gang.phase != Phase.QUIESCING or not all(rank.standing for _, rank in gang.active):
        return gang, ()
    knowing = [rank for _, rank in gang.active if not rank.joining]
    common = set.intersection(*(set(rank.steps) for rank in knowing)) if knowing else set()
    step = max(common, default=0)
    fault = gang.fault
    if fault is not None:
        asked = [rank for n, rank in gang.active if n in fault.ranks] or [gang.active[0][1]]
        worst = max((_source(rank, step) for rank in asked), key=SOURCES.index)
        fault = replace(fault, decided_at=now, step_restored=step, source=worst)
    for number, _ in gang.active:
        gang = _set(gang, number, standing=False, committed=step)
    gang = replace(gang, phase=Phase.RESUMING, since=now, fault=fault)
    fresh = tuple(number for number, rank in gang.active if rank.joining and step and knowing)
    return gang, (Go(generation=gang.generation, step=step, fresh=fresh),)


def _source(rank: Rank, step: int) -> str:
    return rank.sources[rank.steps.index(step)] if step in rank.steps else SOURCES[-1]


def _resumed(gang: Gang, now: float) -> Gang:
    if gang.fault is None:
        return gang
    return replace(gang, fault=replace(gang.fault, restored_at=now))


def _committed(gang: Gang, event: Committed, now: float) -> tuple[Gang, tuple[Command, ...]]:
    committed = max(event.step, gang.ranks[event.rank].committed)
    gang = _set(gang, event.rank, committed=committed, joining=False)
    everywhere = min(rank.committed for _, rank in gang.active)
    if everywhere > gang.best:
        gang = replace(gang, best=everywhere, faults=0)
    restored = 0 if gang.fault is None else gang.fault.step_restored
    if gang.phase == Phase.RESUMING and everywhere > restored:
        return _healed(gang, Phase.RUNNING, now)
    return gang, ()


def _healed(gang: Gang, phase: Phase, now: float) -> tuple[Gang, tuple[Command, ...]]:
    fault = gang.fault
    gang = replace(gang, phase=phase, since=now, fault=None)
    if fault is None:
        return gang, ()
    return gang, (WriteReceipt(fault=fault, generation=gang.generation, resumed_at=now),)


def _finished(gang: Gang, now: float) -> tuple[Gang, tuple[Command, ...]]:
    if gang.phase == Phase.DRAINING or not all(rank.finished for _, rank in gang.active):
        return gang, ()
    gang, commands = _healed(gang, Phase.DRAINING, now)
    return gang, (*commands, Leave())


def _stumbled(gang: Gang, event: Stumbled, now: float) -> Gang:
    if gang.suspect is not None or gang.phase not in (Phase.RUNNING, Phase.RESUMING):
        return gang
    return replace(gang, suspect=event, suspect_at=now)


def _exited(gang: Gang, event: Exited, now: float) -> tuple[Gang, tuple[Command, ...]]:
    rank = gang.ranks[event.rank]
    gang = _set(gang, event.rank, alive=False, standing=False, left=True)
    if gang.phase == Phase.DRAINING or (event.code == 0 and not gang.is_session):
        if all(rank.left for _, rank in gang.active):
            return replace(gang, phase=Phase.DONE), (End(reason=EndReason.DONE, detail=""),)
        return gang, ()
    why = f"killed by signal {-event.code}" if event.code < 0 else f"ended with code {event.code}"
    cause = f"rank {event.rank} {event.error or why}"
    if not gang.is_session:
        reason = EndReason.CRASHED if event.code < 0 else EndReason.USER_ERROR
        return _fail(gang, reason, cause)
    repeated = gang.fault is not None and event.rank in gang.fault.ranks
    if event.code >= 0 and (repeated or not rank.settled or gang.best == 0):
        return _fail(gang, EndReason.USER_ERROR, cause)
    return _lose(gang, (event.rank,), cause, "in-place", now)


def _lose(
    gang: Gang, numbers: tuple[int, ...], cause: str, rung: str, now: float
) -> tuple[Gang, tuple[Command, ...]]:
    """Ranks are lost: end the generation and start their next lives."""
    fault = _merge(gang, numbers, cause, rung, now)
    if gang.faults >= gang.limits.faults:
        detail = f"{gang.faults} recoveries without a new step; the last: {cause}"
        return _fail(gang, EndReason.TOO_MANY_FAULTS, detail)
    ranks = list(gang.ranks)
    for number in numbers:
        old = ranks[number]
        ranks[number] = Rank(
            node=old.node, life=old.life + 1, committed=old.committed, joining=old.joining
        )
    gang, halts = _end_generation(replace(gang, ranks=tuple(ranks)), fault, now)
    spawns = tuple(
        Spawn(rank=n, node=ranks[n].node, life=ranks[n].life) for n in numbers if ranks[n].node
    )
    homeless = tuple(n for n, rank in gang.active if not rank.node)
    if not homeless:
        return gang, (*spawns, *halts)
    gang = replace(gang, phase=Phase.PLACING)
    return gang, (*spawns, *halts, FindPlaces(ranks=homeless))


def _merge(gang: Gang, numbers: tuple[int, ...], cause: str, rung: str, now: float) -> Fault:
    """A fault during a recovery belongs to the same receipt."""
    before = max(rank.committed for _, rank in gang.active)
    old = gang.fault
    if old is None:
        return Fault(cause=cause, ranks=numbers, rung=rung, detected_at=now, step_before=before)
    return replace(
        old,
        cause=f"{old.cause}; then {cause}",
        ranks=tuple(sorted({*old.ranks, *numbers})),
        rung=max(old.rung, rung, key=RUNGS.index),
        step_before=max(old.step_before, before),
    )


def _end_generation(gang: Gang, fault: Fault, now: float) -> tuple[Gang, tuple[Command, ...]]:
    for number, _ in gang.active:
        gang = _set(gang, number, standing=False, finished=False)
    phase = Phase.PLACING if gang.phase == Phase.PLACING else Phase.QUIESCING
    gang = replace(
        gang,
        generation=gang.generation + 1,
        phase=phase,
        since=now,
        fault=fault,
        faults=gang.faults + 1,
        suspect=None,
    )
    halts = tuple(
        Halt(rank=number, generation=gang.generation) for number, rank in gang.active if rank.alive
    )
    return gang, halts


def _node_gone(gang: Gang, node: NodeId, now: float) -> tuple[Gang, tuple[Command, ...]]:
    lost = tuple(number for number, rank in gang.active if rank.node == node)
    if not lost:
        return gang, ()
    if not gang.is_session:
        return _fail(gang, EndReason.NODE_LOST, f"node {node} was lost")
    for number in lost:
        gang = _set(gang, number, node=NodeId(""), alive=False)
    return _lose(gang, lost, f"node {node} was lost", "replace", now)


def _moved(gang: Gang, nodes: Mapping[int, NodeId], now: float) -> tuple[Gang, tuple[Command, ...]]:
    if any(not rank.node and number not in nodes for number, rank in gang.active):
        return _fail(gang, EndReason.NODE_LOST, "no devices are left for the lost ranks")
    spawns = []
    for number, node in nodes.items():
        gang = _set(gang, number, node=node)
        spawns.append(Spawn(rank=number, node=node, life=gang.ranks[number].life))
    gang, commands = _go_if_ready(replace(gang, phase=Phase.QUIESCING, since=now), now)
    return gang, (*spawns, *commands)


def _shrunk(gang: Gang, keep: tuple[int, ...], now: float) -> tuple[Gang, tuple[Command, ...]]:
    for number, _ in gang.active:
        if number not in keep:
            gang = _set(gang, number, retired=True)
    fault = None if gang.fault is None else replace(gang.fault, rung="shrink")
    return _go_if_ready(replace(gang, phase=Phase.QUIESCING, since=now, fault=fault), now)


def _resized(gang: Gang, event: Resized, now: float) -> tuple[Gang, tuple[Command, ...]]:
    """A new generation with fewer ranks or more; no fault, and no receipt."""
    kills = tuple(Kill(rank=number, why="the gang is smaller now") for number in event.leave)
    for number in event.leave:
        gang = _set(gang, number, retired=True)
    ranks = list(gang.ranks)
    for number, node in sorted(event.join.items()):
        while len(ranks) < number:
            ranks.append(Rank(node=NodeId(""), retired=True))  # a number that was never used
        ranks.append(Rank(node=node, joining=True))
    for number, rank in enumerate(ranks):
        ranks[number] = replace(rank, standing=False, finished=False)
    gang = replace(
        gang, ranks=tuple(ranks), generation=gang.generation + 1, phase=Phase.QUIESCING, since=now,
        suspect=None,
    )  # fmt: skip
    halts = tuple(
        Halt(rank=number, generation=gang.generation) for number, rank in gang.active if rank.alive
    )
    spawns = tuple(Spawn(rank=number, node=node, life=1) for number, node in event.join.items())
    return gang, (*kills, *halts, *spawns)


def _tick(gang: Gang, now: float) -> tuple[Gang, tuple[Command, ...]]:
    if gang.suspect is not None and now - gang.suspect_at > gang.limits.suspect_s:
        cause = f"the collective of rank {gang.suspect.rank} broke: {gang.suspect.error}"
        return _lose(gang, (), cause, "retry", now)
    late_s = now - gang.since
    if gang.phase == Phase.QUIESCING and late_s > gang.limits.quiesce_s:
        stuck = [n for n, rank in gang.active if rank.settled and not rank.standing]
        if stuck:
            why = "did not leave its step in time"
            return replace(gang, since=now), tuple(Kill(rank=n, why=why) for n in stuck)
    if gang.phase in (Phase.QUIESCING, Phase.RESUMING) and late_s > gang.limits.start_s:
        return _fail(gang, EndReason.START_FAILED, f"not ready after {late_s:.0f} s")
    return gang, ()


def _fail(gang: Gang, reason: EndReason, detail: str) -> tuple[Gang, tuple[Command, ...]]:
    kills = tuple(Kill(rank=n, why="the gang is over") for n, rank in gang.active if not rank.left)
    return replace(gang, phase=Phase.FAILED), (*kills, End(reason=reason, detail=detail))
