"""How a gang starts, trains and heals: a pure state machine. Events in, commands out.

A *generation* is one life of the process group. Whatever goes wrong ends the generation: the
survivors leave their collectives and say which steps they can restore, the lost ranks are started
again, and once everybody waits, all go on from the newest step that everybody can restore. A
message of an older generation is ignored. No rank is special.
"""

from dataclasses import replace

from karez.core.workloads import EndReason
from karez.training.recovery.commands import (
    DropReplicas,
    EndGang,
    ExitRanks,
    QueryShards,
    Quiesce,
    RecoveryCommand,
    StartGeneration,
    StartRank,
    WriteReceipt,
)
from karez.training.recovery.controller_state import ControllerState
from karez.training.recovery.events import (
    BadLoss,
    CollectiveFailed,
    Committed,
    Exited,
    Finished,
    Hung,
    NodeEvicted,
    NodeGone,
    PlacesFound,
    ReadyToRestore,
    RecoveryEvent,
    ReplicaMismatch,
    Resized,
    Resumed,
    Shrunk,
    Started,
    Tick,
)
from karez.training.recovery.faults import (
    fail_gang,
    fail_ranks,
    kill_rank,
    on_health_event,
    on_node_evicted,
    on_node_lost,
    with_rank,
)
from karez.training.recovery.restore_point import (
    all_can_restore,
    common_step,
    departed,
    farthest_source,
    is_stored,
    member_indices,
    needs_state,
    shard_owners,
)
from karez.training.recovery.shard_layouts import layout_at, layouts_after
from karez.training.recovery.state import (
    HEALING,
    NOWHERE,
    Fault,
    Gang,
    Phase,
    Rank,
)


def begin(gang: Gang) -> tuple[RecoveryCommand, ...]:
    """The commands that start a new gang."""
    return tuple(StartRank(rank=n, node=rank.node, attempt=rank.attempt) for n, rank in gang.active)


def adopt(
    gang: Gang, *, together: bool, now: float, saved: ControllerState | None = None
) -> tuple[Gang, tuple[RecoveryCommand, ...]]:
    """Take over a gang whose foreman was lost, from what its processes last said.

    Args:
        gang: As found; ranks whose process has ended are not `alive`.
        together: Whether all ranks work in the gang's generation right now.
        now: UTC epoch seconds.
        saved: What the lost foreman wrote down.
    """
    dead = tuple(n for n, rank in gang.active if not rank.alive)
    best = min(rank.committed for _, rank in gang.active)
    gang = replace(gang, phase=Phase.RUNNING, since=now, max_committed_step=best)
    if saved is not None:
        for number in saved.joining:
            gang = with_rank(gang, number, joining=True) if number < len(gang.ranks) else gang
        for number in saved.state_corrupt:
            gang = with_rank(gang, number, state_corrupt=True) if number < len(gang.ranks) else gang
        known = saved.fault if saved.phase in HEALING else None
        gang = replace(
            gang,
            faults=saved.faults,
            recent_failures=saved.recent_failures,
            skipped=saved.skipped,
            bad_loss_repeats=saved.bad_loss_repeats,
            max_committed_step=max(best, saved.max_committed_step),
            fault=known,
            shard_layouts=saved.shard_layouts,
            slowest_start_s=saved.slowest_start_s,
        )
    if saved is not None and saved.phase == Phase.DRAINING:
        return replace(gang, phase=Phase.DRAINING), (ExitRanks(),)  # who has left will be heard of
    if not gang.is_session:
        return replace(gang, phase=Phase.QUIESCING), ()  # a plain script, or one that starts yet
    if together and not dead:
        phase = Phase.RESUMING if gang.fault is not None else Phase.RUNNING
        return replace(gang, phase=phase), ()
    cause = f"rank {dead[0]} ended while no control was there" if dead else "control was restarted"
    fault = Fault(
        cause=cause,
        ranks=dead,
        rung="in-place" if dead else "retry",
        code="control",
        detected_at=now,
        step_before=0,
    )
    return fail_ranks(gang, fault, now)


def advance(  # noqa: C901 - one row per event
    gang: Gang, event: RecoveryEvent, now: float
) -> tuple[Gang, tuple[RecoveryCommand, ...]]:
    """The next state, and what to do. Events about other lives or generations change nothing."""
    if gang.phase in (Phase.DONE, Phase.FAILED):
        return gang, ()
    match event:
        case Started(rank=number, attempt=attempt) if _is_current(gang, number, attempt):
            return with_rank(gang, number, alive=True), ()
        case ReadyToRestore() if _is_current(gang, event.rank, event.attempt):
            return _on_ready(gang, event, now)
        case Resumed(generation=generation) if generation == gang.generation:
            return _on_resumed(gang, event, now), ()
        case Committed(generation=generation) if generation == gang.generation and (
            event.rank < len(gang.ranks)
        ):
            return _on_committed(gang, event, now)
        case CollectiveFailed(generation=generation) if generation == gang.generation:
            return _on_collective_failed(gang, event, now), ()
        case Hung() | BadLoss() | ReplicaMismatch():
            return on_health_event(gang, event, now)
        case Finished(rank=number, attempt=attempt, generation=born) if (
            _is_current(gang, number, attempt) and born == gang.generation
        ):
            return _on_finished(with_rank(gang, number, finished=True), now)
        case Exited() if _is_current(gang, event.rank, event.attempt):
            return _on_exited(gang, event, now)
        case NodeGone(node=node):
            return on_node_lost(gang, node, now)
        case NodeEvicted():
            return on_node_evicted(gang, event, now)
        case PlacesFound() if gang.phase == Phase.PLACING:
            return _on_places_found(gang, event, now)
        case Shrunk(keep=keep) if gang.phase == Phase.PLACING:
            return _on_shrunk(gang, keep, now)
        case Resized() if gang.phase == Phase.RUNNING and gang.may_resize:
            return _on_resized(gang, event, now)
        case Tick():
            return _on_tick(gang, now)
        case _:
            return gang, ()


def _is_current(gang: Gang, number: int, attempt: int) -> bool:
    if not 0 <= number < len(gang.ranks):
        return False
    return gang.ranks[number].attempt == attempt and not gang.ranks[number].retired


def _on_ready(
    gang: Gang, event: ReadyToRestore, now: float
) -> tuple[Gang, tuple[RecoveryCommand, ...]]:
    if event.generation == 0 and gang.ranks[event.rank].started_once:
        return gang, ()  # what it said when it was new, heard again by a new foreman
    took_s = now - gang.since if event.generation == 0 else 0.0
    is_first = not gang.is_session
    gang = replace(
        with_rank(gang, event.rank, alive=True, started_once=True),
        is_session=True,
        is_sharded=gang.is_sharded or event.sharded,
        since=now if is_first else gang.since,
        slowest_start_s=max(gang.slowest_start_s, took_s),
    )
    if event.generation not in (0, gang.generation):
        return gang, ()
    if gang.phase not in (Phase.QUIESCING, Phase.PLACING):
        return gang, ()
    indices = member_indices(gang)
    order = [
        step
        for step in sorted(event.steps)
        if event.created_generation.get(step, gang.generation)
        >= layout_at(gang.shard_layouts, step, indices).created_generation
    ]
    sources = tuple(event.steps[step] for step in order)
    gang = with_rank(
        gang,
        event.rank,
        quiesced=True,
        steps=tuple(order),
        sources=sources,
        shards_found=event.shards_found,
        query_pending=False,
    )
    return _start_if_ready(gang, now)


def _start_if_ready(gang: Gang, now: float) -> tuple[Gang, tuple[RecoveryCommand, ...]]:
    if gang.phase != Phase.QUIESCING or not all(rank.quiesced for _, rank in gang.active):
        return gang, ()
    left = departed(gang)
    asked = tuple(
        n for n, rank in gang.active if left and not set(left) <= set(rank.shards_found or ())
    )
    if asked:
        for number in asked:
            gang = with_rank(gang, number, quiesced=False, query_pending=True)
        return gang, tuple(
            QueryShards(rank=n, generation=gang.generation, departed=left) for n in asked
        )
    step, indices = common_step(gang), member_indices(gang)
    begins = gang.is_sharded and not step and not all_can_restore(gang, 0)
    is_anew = begins or is_stored(gang, step)
    pieces = indices if is_anew else shard_owners(gang, step)
    fault = gang.fault
    if fault is not None:
        source = farthest_source(gang, fault.ranks, step)
        fault = replace(fault, decided_at=now, step_restored=step, source=source)
    fresh = tuple(
        n for n, rank in gang.active if begins or (step and needs_state(gang, rank, step))
    )
    for number, _ in gang.active:
        gang = with_rank(
            gang, number, quiesced=False, committed=step, state_corrupt=False, resumed=False
        )
    born = layout_at(gang.shard_layouts, step, indices).created_generation
    cuts = layouts_after(
        gang.shard_layouts,
        step,
        indices,
        gang.generation,
        is_anew=is_anew or not (gang.shard_layouts or step),
    )
    gang = replace(
        gang, phase=Phase.RESUMING, since=now, fault=fault, shard_layouts=cuts, restore_step=step
    )
    go = StartGeneration(
        generation=gang.generation,
        step=step,
        skipped=gang.skipped,
        need_state=fresh,
        shard_ranks=() if pieces == indices else pieces,
        created_generation=born if pieces != indices else 0,
    )
    return gang, (go,)


def _on_resumed(gang: Gang, event: Resumed, now: float) -> Gang:
    if event.rank < len(gang.ranks):
        gang = with_rank(gang, event.rank, resumed=True)
    took_s = max(gang.slowest_start_s, now - gang.since)
    gang = replace(gang, is_rigid=gang.is_rigid or event.rigid, slowest_start_s=took_s)
    if gang.fault is None:
        return gang
    return replace(gang, fault=replace(gang.fault, restored_at=now))


def _on_committed(
    gang: Gang, event: Committed, now: float
) -> tuple[Gang, tuple[RecoveryCommand, ...]]:
    committed = max(event.step, gang.ranks[event.rank].committed)
    gang = with_rank(gang, event.rank, committed=committed, joining=False)
    everywhere = min(rank.committed for _, rank in gang.active)
    if everywhere > gang.max_committed_step:
        gang = replace(gang, max_committed_step=everywhere, faults=0)
    gang, clears = _drop_old_replicas(gang, everywhere)
    restored = 0 if gang.fault is None else gang.fault.step_restored
    if gang.phase == Phase.RESUMING and everywhere > max(restored, gang.restore_step):
        gang, commands = _healed(gang, Phase.RUNNING, now)
        return gang, (*commands, *clears)
    return gang, clears


def _drop_old_replicas(gang: Gang, everywhere: int) -> tuple[Gang, tuple[DropReplicas, ...]]:
    """Two steps after a change of size nobody goes back beyond it: see Rule R."""
    left = tuple(
        n for n, rank in enumerate(gang.ranks) if rank.retired and not rank.replicas_dropped
    )
    if not left or (gang.shard_layouts and everywhere < gang.shard_layouts[-1].after + 2):
        return gang, ()
    for number in left:
        gang = with_rank(gang, number, replicas_dropped=True)
    return gang, (DropReplicas(departed=left),)


def _healed(gang: Gang, phase: Phase, now: float) -> tuple[Gang, tuple[RecoveryCommand, ...]]:
    fault = gang.fault
    gang = replace(gang, phase=phase, since=now, fault=None)
    if fault is None:
        return gang, ()
    return gang, (WriteReceipt(fault=fault, generation=gang.generation, resumed_at=now),)


def _on_finished(gang: Gang, now: float) -> tuple[Gang, tuple[RecoveryCommand, ...]]:
    if gang.phase == Phase.DRAINING or not all(rank.finished for _, rank in gang.active):
        return gang, ()
    gang, commands = _healed(gang, Phase.DRAINING, now)
    return gang, (*commands, ExitRanks())


def _on_collective_failed(gang: Gang, event: CollectiveFailed, now: float) -> Gang:
    if gang.suspect is not None or gang.phase not in (Phase.RUNNING, Phase.RESUMING):
        return gang
    return replace(gang, suspect=event, suspect_at=now)


def _on_exited(gang: Gang, event: Exited, now: float) -> tuple[Gang, tuple[RecoveryCommand, ...]]:
    rank = gang.ranks[event.rank]
    gang = with_rank(gang, event.rank, alive=False, quiesced=False, exited=True)
    if gang.phase == Phase.DRAINING or (event.code == 0 and not gang.is_session):
        if all(rank.exited for _, rank in gang.active):
            return replace(gang, phase=Phase.DONE), (EndGang(reason=EndReason.DONE, detail=""),)
        return gang, ()
    why = f"killed by signal {-event.code}" if event.code < 0 else f"ended with code {event.code}"
    cause = f"rank {event.rank} {event.error or why}"
    if not gang.is_session:
        reason = EndReason.CRASHED if event.code < 0 else EndReason.USER_ERROR
        return fail_gang(gang, reason, cause, now)
    repeated = gang.fault is not None and event.rank in gang.fault.ranks
    if event.code >= 0 and (repeated or not rank.started_once or gang.max_committed_step == 0):
        return fail_gang(gang, EndReason.USER_ERROR, cause, now)
    fault = Fault(cause=cause, ranks=(event.rank,), rung="in-place", detected_at=now, step_before=0)
    return fail_ranks(gang, fault, now)


def _on_places_found(
    gang: Gang, event: PlacesFound, now: float
) -> tuple[Gang, tuple[RecoveryCommand, ...]]:
    if any(not rank.node and number not in event.nodes for number, rank in gang.active):
        return fail_gang(gang, EndReason.NODE_LOST, "no devices are left for the lost ranks", now)
    spawns = []
    for number, node in event.nodes.items():
        gang = with_rank(gang, number, node=node)
        spawns.append(StartRank(rank=number, node=node, attempt=gang.ranks[number].attempt))
    fault = None if gang.fault is None else replace(gang.fault, rung=event.rung)
    pinned = now + gang.limits.pin_s if event.rung == "in-place" else gang.no_move_until
    gang = replace(gang, phase=Phase.QUIESCING, since=now, fault=fault, no_move_until=pinned)
    gang, commands = _start_if_ready(gang, now)
    return gang, (*spawns, *commands)


def _on_shrunk(
    gang: Gang, keep: tuple[int, ...], now: float
) -> tuple[Gang, tuple[RecoveryCommand, ...]]:
    for number, _ in gang.active:
        if number not in keep:
            gang = with_rank(gang, number, retired=True)
    fault = None if gang.fault is None else replace(gang.fault, rung="shrink")
    return _start_if_ready(replace(gang, phase=Phase.QUIESCING, since=now, fault=fault), now)


def _on_resized(gang: Gang, event: Resized, now: float) -> tuple[Gang, tuple[RecoveryCommand, ...]]:
    """A new generation with fewer ranks or more; no fault, and no receipt."""
    kills = tuple(kill_rank(gang, number, "the gang is smaller now") for number in event.leave)
    for number in event.leave:
        gang = with_rank(gang, number, retired=True)
    ranks = list(gang.ranks)
    for number, node in sorted(event.join.items()):
        while len(ranks) < number:
            ranks.append(Rank(node=NOWHERE, retired=True))  # a number that was never used
        ranks.append(Rank(node=node, joining=True))
    for number, rank in enumerate(ranks):
        ranks[number] = replace(
            rank, quiesced=False, finished=False, shards_found=None, query_pending=False
        )
    gang = replace(
        gang,
        ranks=tuple(ranks),
        generation=gang.generation + 1,
        phase=Phase.QUIESCING,
        since=now,
        suspect=None,
    )
    halts = tuple(
        Quiesce(rank=number, generation=gang.generation)
        for number, rank in gang.active
        if rank.alive
    )
    spawns = tuple(
        StartRank(rank=number, node=node, attempt=1) for number, node in event.join.items()
    )
    return gang, (*kills, *halts, *spawns)


def _on_tick(gang: Gang, now: float) -> tuple[Gang, tuple[RecoveryCommand, ...]]:
    if gang.suspect is not None and now - gang.suspect_at > gang.limits.suspect_s:
        fault = Fault(
            cause=f"the collective of rank {gang.suspect.rank} broke: {gang.suspect.error}",
            ranks=(),
            rung="retry",
            code="link",
            detected_at=gang.suspect_at,
            step_before=0,
        )
        return fail_ranks(gang, fault, now)
    late_s = now - gang.since
    if gang.phase == Phase.DRAINING and late_s > gang.limits.leave_s:
        return replace(gang, since=now), (ExitRanks(),)  # whom it did not reach hears it now
    if gang.phase == Phase.QUIESCING and late_s > gang.limits.quiesce_s:
        stuck = [
            n for n, r in gang.active if r.started_once and not (r.quiesced or r.query_pending)
        ]
        if stuck:
            why = "did not leave its step in time"
            return replace(gang, since=now), tuple(kill_rank(gang, n, why) for n in stuck)
    if (waits := _waits_for(gang)) and late_s > max(gang.limits.start_s, 2 * gang.slowest_start_s):
        detail = f"{waits} not ready after {late_s:.0f} s"
        return fail_gang(gang, EndReason.START_FAILED, detail, now)
    return _plain_is_back(gang, now)


def _waits_for(gang: Gang) -> str:
    """Whom a gang waits for, that should be there within the time for a start."""
    absent = [n for n, rank in gang.active if not rank.alive]
    if gang.phase == Phase.QUIESCING and gang.is_session:
        absent = [n for n, rank in gang.active if not rank.quiesced]
    elif gang.phase == Phase.RESUMING:  # a first step may take long: the lookout judges that
        absent = [n for n, rank in gang.active if not rank.resumed]
    elif gang.phase != Phase.QUIESCING:
        return ""
    return f"rank {', '.join(map(str, absent))} was" if absent else ""


def _plain_is_back(gang: Gang, now: float) -> tuple[Gang, tuple[RecoveryCommand, ...]]:
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
