"""How a gang starts, trains and heals: a pure state machine. Events in, commands out.

A *generation* is one life of the process group. Whatever goes wrong ends the generation: the
survivors leave their collectives and say which steps they can restore, the lost ranks are started
again, and once everybody waits, all go on from the newest step that everybody can restore. A
message of an older generation is ignored. No rank is special.
"""

from dataclasses import replace

from karez.core.workloads import EndReason
from karez.training.agreed import (
    can_all,
    common_step,
    departed,
    is_fresh,
    is_stored,
    members,
    origin,
    split_over,
)
from karez.training.cuts import cut_of, resume
from karez.training.faults import distress, distrusted, fail, kill, lose, node_gone, put
from karez.training.gang import (
    HEALING,
    NOWHERE,
    Clear,
    Command,
    Committed,
    Corrupt,
    Distrusted,
    End,
    Event,
    Exited,
    Fault,
    Finished,
    Gang,
    Go,
    Halt,
    Hung,
    Leave,
    Moved,
    NodeGone,
    Phase,
    Poisoned,
    Rank,
    Resized,
    Resumed,
    Seek,
    Shrunk,
    Spawn,
    Started,
    Stood,
    Stumbled,
    Tick,
    WriteReceipt,
)
from karez.training.memo import Memo


def begin(gang: Gang) -> tuple[Command, ...]:
    """The commands that start a new gang."""
    return tuple(Spawn(rank=n, node=rank.node, life=rank.life) for n, rank in gang.active)


def adopt(
    gang: Gang, *, together: bool, now: float, memo: Memo | None = None
) -> tuple[Gang, tuple[Command, ...]]:
    """Take over a gang whose foreman was lost, from what its processes last said.

    Args:
        gang: As found; ranks whose process has ended are not `alive`.
        together: Whether all ranks work in the gang's generation right now.
        now: UTC epoch seconds.
        memo: What the lost foreman wrote down.
    """
    dead = tuple(n for n, rank in gang.active if not rank.alive)
    best = min(rank.committed for _, rank in gang.active)
    gang = replace(gang, phase=Phase.RUNNING, since=now, best=best)
    if memo is not None:
        for number in memo.joining:
            gang = put(gang, number, joining=True) if number < len(gang.ranks) else gang
        for number in memo.tainted:
            gang = put(gang, number, tainted=True) if number < len(gang.ranks) else gang
        known = memo.fault if memo.phase in HEALING else None
        gang = replace(
            gang, faults=memo.faults, past=memo.past, skipped=memo.skipped, poison=memo.poison,
            best=max(best, memo.best), fault=known, cuts=memo.cuts,
            slowest_start_s=memo.slowest_start_s,
        )  # fmt: skip
    if memo is not None and memo.phase == Phase.DRAINING:
        return replace(gang, phase=Phase.DRAINING), (Leave(),)  # who has left will be heard of
    if not gang.is_session:
        return replace(gang, phase=Phase.QUIESCING), ()  # a plain script, or one that starts yet
    if together and not dead:
        phase = Phase.RESUMING if gang.fault is not None else Phase.RUNNING
        return replace(gang, phase=phase), ()
    cause = f"rank {dead[0]} ended while no control was there" if dead else "control was restarted"
    fault = Fault(
        cause=cause, ranks=dead, rung="in-place" if dead else "retry", code="control",
        detected_at=now, step_before=0,
    )  # fmt: skip
    return lose(gang, fault, now)


def advance(gang: Gang, event: Event, now: float) -> tuple[Gang, tuple[Command, ...]]:  # noqa: C901 - one row per event
    """The next state, and what to do. Events about other lives or generations change nothing."""
    if gang.phase in (Phase.DONE, Phase.FAILED):
        return gang, ()
    match event:
        case Started(rank=number, life=life) if _is(gang, number, life):
            return put(gang, number, alive=True), ()
        case Stood() if _is(gang, event.rank, event.life):
            return _stood(gang, event, now)
        case Resumed(generation=generation) if generation == gang.generation:
            return _resumed(gang, event, now), ()
        case Committed(generation=generation) if generation == gang.generation and (
            event.rank < len(gang.ranks)
        ):
            return _committed(gang, event, now)
        case Stumbled(generation=generation) if generation == gang.generation:
            return _stumbled(gang, event, now), ()
        case Hung() | Poisoned() | Corrupt():
            return distress(gang, event, now)
        case Finished(rank=number, life=life, generation=born) if (
            _is(gang, number, life) and born == gang.generation
        ):
            return _finished(put(gang, number, finished=True), now)
        case Exited() if _is(gang, event.rank, event.life):
            return _exited(gang, event, now)
        case NodeGone(node=node):
            return node_gone(gang, node, now)
        case Distrusted():
            return distrusted(gang, event, now)
        case Moved() if gang.phase == Phase.PLACING:
            return _moved(gang, event, now)
        case Shrunk(keep=keep) if gang.phase == Phase.PLACING:
            return _shrunk(gang, keep, now)
        case Resized() if gang.phase == Phase.RUNNING and gang.may_resize:
            return _resized(gang, event, now)
        case Tick():
            return _tick(gang, now)
        case _:
            return gang, ()


def _is(gang: Gang, number: int, life: int) -> bool:
    if not 0 <= number < len(gang.ranks):
        return False
    return gang.ranks[number].life == life and not gang.ranks[number].retired


def _stood(gang: Gang, event: Stood, now: float) -> tuple[Gang, tuple[Command, ...]]:
    if event.generation == 0 and gang.ranks[event.rank].settled:
        return gang, ()  # what it said when it was new, heard again by a new foreman
    took_s = now - gang.since if event.generation == 0 else 0.0
    is_first = not gang.is_session
    gang = replace(
        put(gang, event.rank, alive=True, settled=True), is_session=True,
        is_sharded=gang.is_sharded or event.sharded, since=now if is_first else gang.since,
        slowest_start_s=max(gang.slowest_start_s, took_s),
    )  # fmt: skip
    if event.generation not in (0, gang.generation):
        return gang, ()
    if gang.phase not in (Phase.QUIESCING, Phase.PLACING):
        return gang, ()
    seats = members(gang)
    order = [
        step
        for step in sorted(event.steps)
        if event.born.get(step, gang.generation) >= cut_of(gang.cuts, step, seats).born
    ]
    sources = tuple(event.steps[step] for step in order)
    gang = put(
        gang, event.rank, standing=True, steps=tuple(order), sources=sources, found=event.found,
        sought=False,
    )  # fmt: skip
    return _go_if_ready(gang, now)


def _go_if_ready(gang: Gang, now: float) -> tuple[Gang, tuple[Command, ...]]:
    if gang.phase != Phase.QUIESCING or not all(rank.standing for _, rank in gang.active):
        return gang, ()
    left = departed(gang)
    asked = tuple(n for n, rank in gang.active if left and not set(left) <= set(rank.found or ()))
    if asked:
        for number in asked:
            gang = put(gang, number, standing=False, sought=True)
        return gang, tuple(Seek(rank=n, generation=gang.generation, seats=left) for n in asked)
    step, seats = common_step(gang), members(gang)
    begins = gang.is_sharded and not step and not can_all(gang, 0)
    is_anew = begins or is_stored(gang, step)
    pieces = seats if is_anew else split_over(gang, step)
    fault = gang.fault
    if fault is not None:
        source = origin(gang, fault.ranks, step)
        fault = replace(fault, decided_at=now, step_restored=step, source=source)
    fresh = tuple(n for n, rank in gang.active if begins or (step and is_fresh(gang, rank, step)))
    for number, _ in gang.active:
        gang = put(gang, number, standing=False, committed=step, tainted=False, resumed=False)
    born = cut_of(gang.cuts, step, seats).born
    cuts = resume(
        gang.cuts, step, seats, gang.generation, is_anew=is_anew or not (gang.cuts or step)
    )
    gang = replace(gang, phase=Phase.RESUMING, since=now, fault=fault, cuts=cuts, agreed=step)
    go = Go(
        generation=gang.generation, step=step, skipped=gang.skipped, fresh=fresh,
        pieces=() if pieces == seats else pieces, born=born if pieces != seats else 0,
    )  # fmt: skip
    return gang, (go,)


def _resumed(gang: Gang, event: Resumed, now: float) -> Gang:
    if event.rank < len(gang.ranks):
        gang = put(gang, event.rank, resumed=True)
    took_s = max(gang.slowest_start_s, now - gang.since)
    gang = replace(gang, is_rigid=gang.is_rigid or event.rigid, slowest_start_s=took_s)
    if gang.fault is None:
        return gang
    return replace(gang, fault=replace(gang.fault, restored_at=now))


def _committed(gang: Gang, event: Committed, now: float) -> tuple[Gang, tuple[Command, ...]]:
    committed = max(event.step, gang.ranks[event.rank].committed)
    gang = put(gang, event.rank, committed=committed, joining=False)
    everywhere = min(rank.committed for _, rank in gang.active)
    if everywhere > gang.best:
        gang = replace(gang, best=everywhere, faults=0)
    gang, clears = _clear(gang, everywhere)
    restored = 0 if gang.fault is None else gang.fault.step_restored
    if gang.phase == Phase.RESUMING and everywhere > max(restored, gang.agreed):
        gang, commands = _healed(gang, Phase.RUNNING, now)
        return gang, (*commands, *clears)
    return gang, clears


def _clear(gang: Gang, everywhere: int) -> tuple[Gang, tuple[Clear, ...]]:
    """Two steps after a change of size nobody goes back beyond it: see Rule R."""
    left = tuple(n for n, rank in enumerate(gang.ranks) if rank.retired and not rank.cleared)
    if not left or (gang.cuts and everywhere < gang.cuts[-1].after + 2):
        return gang, ()
    for number in left:
        gang = put(gang, number, cleared=True)
    return gang, (Clear(seats=left),)


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
    gang = put(gang, event.rank, alive=False, standing=False, left=True)
    if gang.phase == Phase.DRAINING or (event.code == 0 and not gang.is_session):
        if all(rank.left for _, rank in gang.active):
            return replace(gang, phase=Phase.DONE), (End(reason=EndReason.DONE, detail=""),)
        return gang, ()
    why = f"killed by signal {-event.code}" if event.code < 0 else f"ended with code {event.code}"
    cause = f"rank {event.rank} {event.error or why}"
    if not gang.is_session:
        reason = EndReason.CRASHED if event.code < 0 else EndReason.USER_ERROR
        return fail(gang, reason, cause, now)
    repeated = gang.fault is not None and event.rank in gang.fault.ranks
    if event.code >= 0 and (repeated or not rank.settled or gang.best == 0):
        return fail(gang, EndReason.USER_ERROR, cause, now)
    fault = Fault(cause=cause, ranks=(event.rank,), rung="in-place", detected_at=now, step_before=0)
    return lose(gang, fault, now)


def _moved(gang: Gang, event: Moved, now: float) -> tuple[Gang, tuple[Command, ...]]:
    if any(not rank.node and number not in event.nodes for number, rank in gang.active):
        return fail(gang, EndReason.NODE_LOST, "no devices are left for the lost ranks", now)
    spawns = []
    for number, node in event.nodes.items():
        gang = put(gang, number, node=node)
        spawns.append(Spawn(rank=number, node=node, life=gang.ranks[number].life))
    fault = None if gang.fault is None else replace(gang.fault, rung=event.rung)
    pinned = now + gang.limits.pin_s if event.rung == "in-place" else gang.pinned_until
    gang = replace(gang, phase=Phase.QUIESCING, since=now, fault=fault, pinned_until=pinned)
    gang, commands = _go_if_ready(gang, now)
    return gang, (*spawns, *commands)


def _shrunk(gang: Gang, keep: tuple[int, ...], now: float) -> tuple[Gang, tuple[Command, ...]]:
    for number, _ in gang.active:
        if number not in keep:
            gang = put(gang, number, retired=True)
    fault = None if gang.fault is None else replace(gang.fault, rung="shrink")
    return _go_if_ready(replace(gang, phase=Phase.QUIESCING, since=now, fault=fault), now)


def _resized(gang: Gang, event: Resized, now: float) -> tuple[Gang, tuple[Command, ...]]:
    """A new generation with fewer ranks or more; no fault, and no receipt."""
    kills = tuple(kill(gang, number, "the gang is smaller now") for number in event.leave)
    for number in event.leave:
        gang = put(gang, number, retired=True)
    ranks = list(gang.ranks)
    for number, node in sorted(event.join.items()):
        while len(ranks) < number:
            ranks.append(Rank(node=NOWHERE, retired=True))  # a number that was never used
        ranks.append(Rank(node=node, joining=True))
    for number, rank in enumerate(ranks):
        ranks[number] = replace(rank, standing=False, finished=False, found=None, sought=False)
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
        fault = Fault(
            cause=f"the collective of rank {gang.suspect.rank} broke: {gang.suspect.error}",
            ranks=(), rung="retry", code="link", detected_at=gang.suspect_at, step_before=0,
        )  # fmt: skip
        return lose(gang, fault, now)
    late_s = now - gang.since
    if gang.phase == Phase.DRAINING and late_s > gang.limits.leave_s:
        return replace(gang, since=now), (Leave(),)  # whom it did not reach hears it now
    if gang.phase == Phase.QUIESCING and late_s > gang.limits.quiesce_s:
        stuck = [n for n, r in gang.active if r.settled and not (r.standing or r.sought)]
        if stuck:
            why = "did not leave its step in time"
            return replace(gang, since=now), tuple(kill(gang, n, why) for n in stuck)
    if (waits := _waits_for(gang)) and late_s > max(gang.limits.start_s, 2 * gang.slowest_start_s):
        detail = f"{waits} not ready after {late_s:.0f} s"
        return fail(gang, EndReason.START_FAILED, detail, now)
    return _plain_is_back(gang, now)


def _waits_for(gang: Gang) -> str:
    """Whom a gang waits for, that should be there within the time for a start."""
    absent = [n for n, rank in gang.active if not rank.alive]
    if gang.phase == Phase.QUIESCING and gang.is_session:
        absent = [n for n, rank in gang.active if not rank.standing]
    elif gang.phase == Phase.RESUMING:  # a first step may take long: the lookout judges that
        absent = [n for n, rank in gang.active if not rank.resumed]
    elif gang.phase != Phase.QUIESCING:
        return ""
    return f"rank {', '.join(map(str, absent))} was" if absent else ""


def _plain_is_back(gang: Gang, now: float) -> tuple[Gang, tuple[Command, ...]]:
    """A script without a session that was started over: nobody says which step it is at."""
    runs = gang.phase == Phase.QUIESCING and all(rank.alive for _, rank in gang.active)
    if gang.fault is None or gang.is_session or not runs:
        return gang, ()
    if now - gang.since <= gang.limits.start_s:
        return gang, ()  # it may be a session that has not begun
    began = gang.since
    fault = replace(gang.fault, source="start", decided_at=began, restored_at=began)
    receipt = WriteReceipt(fault=fault, generation=gang.generation, resumed_at=began)
    return replace(gang, fault=None), (receipt,)
