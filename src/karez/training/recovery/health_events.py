"""Transitions for faults without an exit: a hang, a bad loss, replicas that differ. Pure."""

from dataclasses import replace

from karez.core.workloads import EndReason
from karez.training.recovery.commands import Decision, kill_rank
from karez.training.recovery.events import UNEVEN, BadLoss, Hung, ReplicaMismatch
from karez.training.recovery.faults import fail_ranks
from karez.training.recovery.gang_failure import fail_gang
from karez.training.recovery.state import Fault, Gang, Phase, with_rank


def on_health_event(gang: Gang, event: Hung | BadLoss | ReplicaMismatch, now: float) -> Decision:
    """End the generation, and restart the ranks that are at fault."""
    if gang.phase not in (Phase.RUNNING, Phase.RESUMING, Phase.QUIESCING) or not gang.is_session:
        return gang, ()
    if isinstance(event, Hung):
        return _on_hung(gang, event, now)
    if event.generation != gang.generation or gang.phase == Phase.QUIESCING:
        return gang, ()
    if isinstance(event, ReplicaMismatch):
        return _on_replica_mismatch(gang, event, now)
    return _on_bad_loss(gang, event, now)


def _on_hung(gang: Gang, event: Hung, now: float) -> Decision:
    if event.code == UNEVEN:  # it would end so each time
        return fail_gang(gang, EndReason.USER_ERROR, event.why, now, code="hang")
    ranks = tuple(n for n in event.ranks if not gang.ranks[n].has_left)
    fault = Fault(
        cause=event.why,
        ranks=ranks,
        rung="in-place" if ranks else "retry",
        code=event.code,
        detected_at=event.since,
        step_before=0,
    )
    return _kill_and_fail(gang, fault, now)


def _kill_and_fail(gang: Gang, fault: Fault, now: float) -> Decision:
    """End the processes of a fault's ranks, which still run, and recover from it."""
    kills = tuple(kill_rank(gang, n, fault.cause) for n in fault.ranks)
    gang, commands = fail_ranks(gang, fault, now)
    return gang, (*kills, *commands)


def _on_replica_mismatch(gang: Gang, event: ReplicaMismatch, now: float) -> Decision:
    """Restart the minority with the state of the majority."""
    active = gang.active
    minority = tuple(active[n][0] for n in event.ranks if n < len(active))
    for number in minority:
        gang = with_rank(gang, number, state_corrupt=not gang.is_sharded)
    named = ", ".join(f"rank {n} on {gang.ranks[n].node}" for n in minority) or "no majority"
    fault = Fault(
        cause=f"replicas differed after step {event.step}: {named}",
        ranks=minority,
        rung="in-place" if minority else "retry",
        code="corrupt",
        detected_at=now,
        step_before=0,
    )
    return _kill_and_fail(gang, fault, now)


def _on_bad_loss(gang: Gang, event: BadLoss, now: float) -> Decision:
    """Repeat the step; if its batch fails again, leave that batch out."""
    count = gang.bad_loss_repeats[1] + 1 if gang.bad_loss_repeats[0] == event.step else 1
    replays = gang.limits.replays if event.replays is None else event.replays
    if count > replays + gang.limits.skips:
        detail = f"{event.error} at step {event.step}, also without {gang.limits.skips} batches"
        return fail_gang(gang, EndReason.USER_ERROR, detail, now)
    skipped = (event.batch,) if count > replays else ()
    remedy = f"batch {event.batch} is left out" if skipped else "the step is done again"
    fault = Fault(
        cause=f"{event.error} on rank {event.rank} at step {event.step}: {remedy}",
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
