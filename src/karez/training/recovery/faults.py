"""How a gang loses ranks and goes on: the part of the protocol that deals with faults. Pure."""

from dataclasses import replace

from karez.core.nodes import NodeId
from karez.core.workloads import EndReason
from karez.training.recovery import ladder
from karez.training.recovery.commands import (
    EmergencyCheckpoint,
    EndGang,
    FindPlaces,
    KillRank,
    Quiesce,
    RecoveryCommand,
    StartRank,
)
from karez.training.recovery.events import BadLoss, Hung, NodeEvicted, ReplicaMismatch
from karez.training.recovery.state import NOWHERE, RUNGS, Fault, Gang, Phase, Rank


def kill_rank(gang: Gang, number: int, why: str) -> KillRank:
    """The end of a rank's process as it is now: said before its next life is decided on."""
    rank = gang.ranks[number]
    return KillRank(rank=number, node=rank.node or rank.home, attempt=rank.attempt, why=why)


def with_rank(gang: Gang, number: int, **changes: object) -> Gang:
    """A gang with one rank changed."""
    ranks = list(gang.ranks)
    ranks[number] = replace(ranks[number], **changes)  # type: ignore[arg-type]  # Rank's fields
    return replace(gang, ranks=tuple(ranks))


def fail_ranks(gang: Gang, fault: Fault, now: float) -> tuple[Gang, tuple[RecoveryCommand, ...]]:
    """End the generation; the ranks that a fault names start their next lives, or are replaced."""
    numbers = fault.ranks
    counts = not _is_same_wave(gang, numbers)
    fault = _merge(gang, fault, now)
    if gang.faults >= gang.limits.faults:
        detail = f"{gang.faults} recoveries without a new step; the last: {fault.cause}"
        return fail_gang(replace(gang, fault=fault), EndReason.TOO_MANY_FAULTS, detail, now)
    if not numbers and "retry" not in gang.ladder:
        detail = f"{fault.cause}; its ladder has no `retry`"
        return fail_gang(replace(gang, fault=fault), EndReason.CRASHED, detail, now)
    gang, rungs = _choose_strategy(gang, numbers, now)
    gang, halts = _end_generation(gang, fault, now)
    gang = replace(gang, faults=gang.faults + counts)
    ranks = gang.ranks
    spawns = tuple(
        StartRank(rank=n, node=ranks[n].node, attempt=ranks[n].attempt)
        for n in numbers
        if ranks[n].node
    )
    homeless = tuple(n for n, rank in gang.active if not rank.node)
    if not homeless:
        return gang, (*spawns, *halts)
    gang = replace(gang, phase=Phase.PLACING)
    return gang, (*spawns, *halts, FindPlaces(ranks=homeless, rungs=rungs))


def _is_same_wave(gang: Gang, numbers: tuple[int, ...]) -> bool:
    """Whether more ranks fell before the gang stood again: a hundred that die at once are one."""
    if gang.fault is None or gang.phase not in (Phase.QUIESCING, Phase.PLACING):
        return False
    return bool(numbers) and not set(numbers) & set(gang.fault.ranks)


def _choose_strategy(
    gang: Gang, numbers: tuple[int, ...], now: float
) -> tuple[Gang, tuple[str, ...]]:
    """Each lost rank's next life, in its place or without one; and the rungs to find places by."""
    ranks, past = list(gang.ranks), list(gang.recent_failures)
    for number in numbers:
        old = ranks[number]
        node = old.node or old.home
        again = ladder.recent_faults(past, node, now)
        rungs = _rungs(gang, again)
        stays = bool(old.node) and (
            rungs[:1] == ("in-place",) or ("in-place" in rungs and now < gang.no_move_until)
        )
        ranks[number] = Rank(
            node=old.node if stays else NOWHERE,
            home=old.node or old.home,
            attempt=old.attempt + 1,
            committed=old.committed,
            joining=old.joining,
            state_corrupt=old.state_corrupt,
        )
        past.append((node, now))
    kept = tuple((node, at) for node, at in past if now - at < ladder.WINDOW_S)
    worst = max((ladder.recent_faults(kept, node, now) for node, _ in kept), default=0)
    return replace(gang, ranks=tuple(ranks), recent_failures=kept), _rungs(gang, worst)


def _rungs(gang: Gang, again: int) -> tuple[str, ...]:
    allowed = [rung for rung in gang.ladder if rung != "shrink" or gang.may_resize]
    return ladder.order_rungs(
        allowed, gang.costs, again=again, world=len(gang.active), is_fixed=gang.ladder_fixed
    )


def _merge(gang: Gang, new: Fault, now: float) -> Fault:
    """A fault during a recovery belongs to the same receipt."""
    before = max(rank.committed for _, rank in gang.active)
    seen = gang.suspect_at if gang.suspect is not None else new.detected_at
    nodes = {gang.ranks[n].node or gang.ranks[n].home for n in new.ranks}
    old = gang.fault
    if old is None:
        return replace(
            new,
            detected_at=min(seen, new.detected_at),
            confirmed_at=now,
            step_before=before,
            nodes=tuple(sorted(nodes - {""})),
        )
    return replace(
        old,
        cause=f"{old.cause}; then {new.cause}",
        ranks=tuple(sorted({*old.ranks, *new.ranks})),
        rung=max(old.rung, new.rung, key=RUNGS.index),
        step_before=max(old.step_before, before),
        nodes=tuple(sorted({*old.nodes, *nodes} - {""})),
        skipped=tuple(sorted({*old.skipped, *new.skipped})),
    )


def _end_generation(
    gang: Gang, fault: Fault, now: float
) -> tuple[Gang, tuple[RecoveryCommand, ...]]:
    for number, _ in gang.active:
        gang = with_rank(
            gang, number, quiesced=False, finished=False, shards_found=None, query_pending=False
        )
    phase = Phase.PLACING if gang.phase == Phase.PLACING else Phase.QUIESCING
    gang = replace(
        gang,
        generation=gang.generation + 1,
        phase=phase,
        since=now,
        fault=fault,
        suspect=None,
    )
    halts = tuple(
        Quiesce(rank=number, generation=gang.generation)
        for number, rank in gang.active
        if rank.alive
    )
    return gang, halts


def on_node_lost(gang: Gang, node: NodeId, now: float) -> tuple[Gang, tuple[RecoveryCommand, ...]]:
    """All that stood on a node is lost."""
    lost = tuple(number for number, rank in gang.active if rank.node == node)
    for number, rank in gang.active:
        if rank.home == node:
            gang = with_rank(gang, number, home=NOWHERE)
    if not lost:
        return gang, ()
    if not gang.is_session:
        return fail_gang(gang, EndReason.NODE_LOST, f"node {node} was lost", now, code="node")
    for number in lost:
        gang = with_rank(gang, number, node=NOWHERE, alive=False)
    fault = Fault(
        cause=f"node {node} was lost",
        ranks=lost,
        rung="replace",
        code="node",
        detected_at=now,
        step_before=0,
        nodes=(node,),
    )
    return fail_ranks(gang, fault, now)


def on_node_evicted(
    gang: Gang, event: NodeEvicted, now: float
) -> tuple[Gang, tuple[RecoveryCommand, ...]]:
    """Leave a node that still answers: its ranks are ended, and start elsewhere."""
    there = tuple(number for number, rank in gang.active if rank.node == event.node)
    may_leave = {"replace", "shrink"} & set(gang.ladder)
    if not there or not may_leave or not gang.is_session or now < gang.no_move_until:
        return gang, ()
    kills = tuple(kill_rank(gang, number, event.why) for number in there)
    past = (*gang.recent_failures, *((event.node, now) for _ in range(ladder.CONDEMNED)))
    fault = Fault(
        cause=event.why,
        ranks=there,
        rung="replace",
        code="report",
        detected_at=now,
        step_before=0,
        nodes=(event.node,),
    )
    gang, commands = fail_ranks(replace(gang, recent_failures=past), fault, now)
    return gang, (*kills, *commands)


def on_health_event(
    gang: Gang, event: Hung | BadLoss | ReplicaMismatch, now: float
) -> tuple[Gang, tuple[RecoveryCommand, ...]]:
    """What nobody's exit tells: somebody hangs, a loss is bad, a replica differs."""
    if gang.phase not in (Phase.RUNNING, Phase.RESUMING, Phase.QUIESCING) or not gang.is_session:
        return gang, ()
    if isinstance(event, Hung):
        ranks = tuple(n for n in event.ranks if not gang.ranks[n].retired)
        fault = Fault(
            cause=event.why,
            ranks=ranks,
            rung="in-place" if ranks else "retry",
            code=event.code,
            detected_at=event.since,
            step_before=0,
        )
        kills = tuple(kill_rank(gang, n, event.why) for n in ranks)
        gang, commands = fail_ranks(gang, fault, now)
        return gang, (*kills, *commands)
    if event.generation != gang.generation or gang.phase == Phase.QUIESCING:
        return gang, ()
    return (
        _on_replica_mismatch(gang, event, now)
        if isinstance(event, ReplicaMismatch)
        else _on_bad_loss(gang, event, now)
    )


def _on_replica_mismatch(
    gang: Gang, event: ReplicaMismatch, now: float
) -> tuple[Gang, tuple[RecoveryCommand, ...]]:
    """Those that differ from most start anew and take the state of one of the others."""
    active = gang.active
    odd = tuple(active[n][0] for n in event.ranks if n < len(active))
    for number in odd:
        gang = with_rank(gang, number, state_corrupt=not gang.is_sharded)
    named = ", ".join(f"rank {n} on {gang.ranks[n].node}" for n in odd) or "nobody knows which"
    fault = Fault(
        cause=f"replicas differed after step {event.step}: {named}",
        ranks=odd,
        rung="in-place" if odd else "retry",
        code="corrupt",
        detected_at=now,
        step_before=0,
    )
    kills = tuple(kill_rank(gang, n, fault.cause) for n in odd)
    gang, commands = fail_ranks(gang, fault, now)
    return gang, (*kills, *commands)


def _on_bad_loss(
    gang: Gang, event: BadLoss, now: float
) -> tuple[Gang, tuple[RecoveryCommand, ...]]:
    """Do the step again; if its batch fails it again, leave that batch out."""
    count = gang.bad_loss_repeats[1] + 1 if gang.bad_loss_repeats[0] == event.step else 1
    replays = gang.limits.replays if event.replays is None else event.replays
    if count > replays + gang.limits.skips:
        detail = f"{event.error} at step {event.step}, also without {gang.limits.skips} batches"
        return fail_gang(gang, EndReason.USER_ERROR, detail, now)
    skipped = (event.batch,) if count > replays else ()
    what = f"batch {event.batch} is left out" if skipped else "the step is done again"
    fault = Fault(
        cause=f"{event.error} on rank {event.rank} at step {event.step}: {what}",
        ranks=(),
        rung="retry",
        code="nan",
        detected_at=now,
        step_before=0,
        skipped=skipped,
    )
    gang = replace(
        gang, bad_loss_repeats=(event.step, count), skipped=tuple(sorted({*gang.skipped, *skipped}))
    )
    return fail_ranks(gang, fault, now)


def fail_gang(
    gang: Gang, reason: EndReason, detail: str, now: float, *, code: str = "exit"
) -> tuple[Gang, tuple[RecoveryCommand, ...]]:
    """End it; those that live store what they hold first. A start over heals the fault."""
    alive = tuple(n for n, rank in gang.active if rank.alive and rank.started_once)
    gasps = (
        (EmergencyCheckpoint(ranks=alive),)
        if alive and gang.is_session and gang.max_committed_step
        else ()
    )
    kills = tuple(
        kill_rank(gang, n, "the gang is over") for n, rank in gang.active if not rank.exited
    )
    last = Fault(
        cause=detail,
        ranks=(),
        rung="restart",
        code=code,
        detected_at=now,
        confirmed_at=now,
        step_before=max((rank.committed for _, rank in gang.active), default=0),
    )
    if (old := gang.fault) is not None:
        cause = (
            old.cause if detail in old.cause or old.cause in detail else f"{old.cause}; {detail}"
        )
        last = replace(old, cause=cause, rung="restart")
    gang = replace(gang, phase=Phase.FAILED, fault=last)
    return gang, (*gasps, *kills, EndGang(reason=reason, detail=detail))
