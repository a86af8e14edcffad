"""Recovers from a fault: ends the generation and restarts or replaces the lost ranks. Pure."""

from dataclasses import replace

from karez.core.jobs import LADDER
from karez.core.nodes import NodeId
from karez.core.workloads import EndReason
from karez.training.recovery import ladder
from karez.training.recovery.commands import Decision, FindPlaces, start_rank
from karez.training.recovery.gang_failure import fail_gang
from karez.training.recovery.generations import next_generation
from karez.training.recovery.state import NOWHERE, Fault, Gang, Phase, Rank


def fail_ranks(gang: Gang, fault: Fault, now: float) -> Decision:
    """End the generation; the ranks that the fault names are restarted, or replaced."""
    numbers = fault.ranks
    is_counted = not _is_same_wave(gang, numbers)
    fault = _merge(gang, fault, now)
    if gang.faults >= gang.limits.faults:
        detail = f"{gang.faults} recoveries without a new step; the last: {fault.cause}"
        return fail_gang(replace(gang, fault=fault), EndReason.TOO_MANY_FAULTS, detail, now)
    if not numbers and "retry" not in gang.ladder:
        detail = f"{fault.cause}; its ladder has no `retry`"
        return fail_gang(replace(gang, fault=fault), EndReason.CRASHED, detail, now)
    gang, rungs = _choose_strategy(gang, numbers, now)
    phase = Phase.PLACING if gang.phase == Phase.PLACING else Phase.QUIESCING
    gang, quiesces = next_generation(gang, phase, now)
    gang = replace(gang, fault=fault, faults=gang.faults + is_counted)
    starts = tuple(start_rank(gang, n) for n in numbers if gang.ranks[n].node)
    homeless = tuple(n for n, rank in gang.active if not rank.node)
    if not homeless:
        return gang, (*starts, *quiesces)
    gang = replace(gang, phase=Phase.PLACING)
    return gang, (*starts, *quiesces, FindPlaces(ranks=homeless, rungs=rungs))


def _is_same_wave(gang: Gang, numbers: tuple[int, ...]) -> bool:
    """Whether other ranks fail during the same recovery: a hundred that die at once are one."""
    if gang.fault is None or gang.phase not in (Phase.QUIESCING, Phase.PLACING):
        return False
    return bool(numbers) and not set(numbers) & set(gang.fault.ranks)


def _choose_strategy(
    gang: Gang, numbers: tuple[int, ...], now: float
) -> tuple[Gang, tuple[str, ...]]:
    """Give each lost rank its next attempt, with or without a node; and the rungs to place it."""
    ranks, failures = list(gang.ranks), list(gang.recent_failures)
    for number in numbers:
        rank = ranks[number]
        node = rank.node or rank.home
        ranks[number] = _next_attempt(gang, rank, failures, now)
        failures.append((node, now))
    recent = tuple((node, at) for node, at in failures if now - at < ladder.WINDOW_S)
    worst = max((ladder.recent_faults(recent, node, now) for node, _ in recent), default=0)
    return replace(gang, ranks=tuple(ranks), recent_failures=recent), _rungs(gang, worst)


def _next_attempt(gang: Gang, rank: Rank, failures: list[tuple[NodeId, float]], now: float) -> Rank:
    """A lost rank's next process: on the same node, or without a node yet."""
    home = rank.node or rank.home
    rungs = _rungs(gang, ladder.recent_faults(failures, home, now))
    stays = bool(rank.node) and (
        rungs[:1] == ("in-place",) or ("in-place" in rungs and now < gang.no_move_until)
    )
    return Rank(
        node=rank.node if stays else NOWHERE,
        home=home,
        attempt=rank.attempt + 1,
        committed=rank.committed,
        joining=rank.joining,
        state_corrupt=rank.state_corrupt,
    )


def _rungs(gang: Gang, again: int) -> tuple[str, ...]:
    allowed = [rung for rung in gang.ladder if rung != "shrink" or gang.may_resize]
    return ladder.order_rungs(
        allowed, gang.costs, again=again, world=len(gang.active), is_fixed=gang.ladder_fixed
    )


def _merge(gang: Gang, new: Fault, now: float) -> Fault:
    """The fault of the present recovery: a second one is added to the same receipt."""
    step_before = max(rank.committed for _, rank in gang.active)
    first_sign_at = gang.suspect_at if gang.suspect is not None else new.detected_at
    nodes = {gang.ranks[n].node or gang.ranks[n].home for n in new.ranks}
    old = gang.fault
    if old is None:
        return replace(
            new,
            detected_at=min(first_sign_at, new.detected_at),
            confirmed_at=now,
            step_before=step_before,
            nodes=tuple(sorted(nodes - {""})),
        )
    return replace(
        old,
        cause=f"{old.cause}; then {new.cause}",
        ranks=tuple(sorted({*old.ranks, *new.ranks})),
        rung=max(old.rung, new.rung, key=LADDER.index),
        step_before=max(old.step_before, step_before),
        nodes=tuple(sorted({*old.nodes, *nodes} - {""})),
        skipped=tuple(sorted({*old.skipped, *new.skipped})),
    )
