"""Begins a new gang, or adopts the processes of a gang that has lost its controller. Pure."""

from dataclasses import replace

from karez.training.recovery.commands import Decision, ExitRanks, RecoveryCommand, start_rank
from karez.training.recovery.controller_state import ControllerState
from karez.training.recovery.faults import fail_ranks
from karez.training.recovery.state import (
    HEALING,
    IN_SESSION,
    Fault,
    Gang,
    Phase,
    RankPhase,
    with_phase,
    with_rank,
)


def begin(gang: Gang) -> tuple[RecoveryCommand, ...]:
    """The commands that start a new gang."""
    return tuple(start_rank(gang, number) for number, _ in gang.active)


def adopt(
    gang: Gang, *, together: bool, now: float, saved: ControllerState | None = None
) -> Decision:
    """Continue a gang whose controller was lost, from what its processes last reported.

    Args:
        gang: As its processes describe it; ranks whose process has ended are not `alive`.
        together: Whether all ranks work in the gang's generation at this moment.
        now: UTC epoch seconds.
        saved: The state that the lost controller stored.
    """
    committed = min(rank.committed for _, rank in gang.active)
    gang = replace(gang, phase=Phase.RUNNING, since=now, max_committed_step=committed)
    if saved is not None:
        gang = _with_saved(gang, saved)
        if saved.phase == Phase.DRAINING:  # exits that happened meanwhile are reported later
            gang = replace(_each_in(gang, RankPhase.FINISHED), phase=Phase.DRAINING)
            return gang, (ExitRanks(),)
    if not gang.is_session:
        return replace(gang, phase=Phase.QUIESCING), ()  # a plain script, or one still starting
    dead = tuple(n for n, rank in gang.active if not rank.is_alive)
    if together and not dead:
        phase = Phase.RESUMING if gang.fault is not None else Phase.RUNNING
        return replace(_each_in(gang, RankPhase.TRAINING), phase=phase), ()
    return fail_ranks(gang, _takeover_fault(dead, now), now)


def _with_saved(gang: Gang, saved: ControllerState) -> Gang:
    """The gang with what the processes cannot report of it."""
    for number in saved.joining:
        gang = with_rank(gang, number, joining=True) if number < len(gang.ranks) else gang
    for number in saved.state_corrupt:
        gang = with_rank(gang, number, state_corrupt=True) if number < len(gang.ranks) else gang
    return replace(
        gang,
        faults=saved.faults,
        recent_failures=saved.recent_failures,
        skipped=saved.skipped,
        bad_loss_repeats=saved.bad_loss_repeats,
        max_committed_step=max(gang.max_committed_step, saved.max_committed_step),
        fault=saved.fault if saved.phase in HEALING else None,
        shard_layouts=saved.shard_layouts,
        slowest_start_s=saved.slowest_start_s,
    )


def _each_in(gang: Gang, phase: RankPhase) -> Gang:
    """The gang with every rank that is past its start in this phase."""
    for number, rank in gang.active:
        gang = with_phase(gang, number, phase) if rank.phase in IN_SESSION else gang
    return gang


def _takeover_fault(dead: tuple[int, ...], now: float) -> Fault:
    return Fault(
        cause=f"rank {dead[0]} ended while no control was there"
        if dead
        else "control was restarted",
        ranks=dead,
        rung="in-place" if dead else "retry",
        code="control",
        detected_at=now,
        step_before=0,
    )
