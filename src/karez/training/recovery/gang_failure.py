"""Ends a gang that cannot recover by itself. Pure."""

from dataclasses import replace

from karez.core.workloads import EndReason
from karez.training.recovery.commands import Decision, EmergencyCheckpoint, EndGang, kill_rank
from karez.training.recovery.state import IN_SESSION, Fault, Gang, Phase, RankPhase


def fail_gang(
    gang: Gang, reason: EndReason, detail: str, now: float, *, code: str = "exit"
) -> Decision:
    """End the gang after an emergency checkpoint; a restart of the job recovers from the fault."""
    alive = tuple(n for n, rank in gang.active if rank.phase in IN_SESSION)
    can_save = bool(alive) and gang.is_session and gang.max_committed_step > 0
    saves = (EmergencyCheckpoint(ranks=alive),) if can_save else ()
    kills = tuple(
        kill_rank(gang, n, "the gang has failed")
        for n, rank in gang.active
        if rank.phase != RankPhase.EXITED
    )
    gang = replace(gang, phase=Phase.FAILED, fault=_last_fault(gang, detail, now, code))
    return gang, (*saves, *kills, EndGang(reason=reason, detail=detail))


def _last_fault(gang: Gang, detail: str, now: float, code: str) -> Fault:
    """The fault that a restart of the job recovers from: the present one, or a new one."""
    if (fault := gang.fault) is None:
        return Fault(
            cause=detail,
            ranks=(),
            rung="restart",
            code=code,
            detected_at=now,
            confirmed_at=now,
            step_before=max((rank.committed for _, rank in gang.active), default=0),
        )
    is_repeated = detail in fault.cause or fault.cause in detail
    cause = fault.cause if is_repeated else f"{fault.cause}; {detail}"
    return replace(fault, cause=cause, rung="restart")
