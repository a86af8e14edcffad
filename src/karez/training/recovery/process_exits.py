"""Transitions of a gang when the process of a rank has ended. Pure."""

from dataclasses import replace

from karez.core.errors import DEVICE_FAULT
from karez.core.workloads import EndReason
from karez.training.recovery import ladder
from karez.training.recovery.commands import Decision, EndGang, WriteReceipt
from karez.training.recovery.events import Exited
from karez.training.recovery.faults import fail_ranks
from karez.training.recovery.gang_failure import fail_gang
from karez.training.recovery.plain_scripts import complete_plain_recovery
from karez.training.recovery.state import IN_SESSION, Fault, Gang, Phase, RankPhase, with_phase


def on_exited(gang: Gang, event: Exited, now: float) -> Decision:
    """Restart the rank, or end the gang: it is done, or the user's own code has failed."""
    rank = gang.ranks[event.rank]
    gang = with_phase(gang, event.rank, RankPhase.EXITED)
    if gang.phase == Phase.DRAINING or (event.code == 0 and not gang.is_session):
        if gang.all_in(RankPhase.EXITED):
            gang, receipts = complete_plain_recovery(gang)
            end = EndGang(reason=EndReason.DONE, detail="")
            return replace(gang, phase=Phase.DONE), (*receipts, end)
        return gang, ()
    why = f"killed by signal {-event.code}" if event.code < 0 else f"ended with code {event.code}"
    cause = f"rank {event.rank} {event.error or why}"
    if not gang.is_session:
        reason = EndReason.CRASHED if event.code < 0 else EndReason.USER_ERROR
        restarted: tuple[WriteReceipt, ...] = ()
        if gang.fault is not None and gang.fault.step_before == 0:
            gang, restarted = complete_plain_recovery(gang)  # it ran, until it failed anew
        gang, commands = fail_gang(gang, reason, cause, now)
        return gang, (*restarted, *commands)
    is_repeated = gang.fault is not None and event.rank in gang.fault.ranks
    is_device = event.code == DEVICE_FAULT and gang.max_committed_step > 0
    if is_device and not is_repeated:
        return _leave_device(gang, event.rank, cause, now)
    if event.code >= 0 and (
        is_repeated or rank.phase not in IN_SESSION or gang.max_committed_step == 0
    ):
        reason = EndReason.NODE_LOST if is_device else EndReason.USER_ERROR
        return fail_gang(gang, reason, cause, now, code="device" if is_device else "exit")
    fault = Fault(cause=cause, ranks=(event.rank,), rung="in-place", detected_at=now, step_before=0)
    return fail_ranks(gang, fault, now)


def _leave_device(gang: Gang, number: int, cause: str, now: float) -> Decision:
    """Replace a rank whose device has failed; on the same node only where there is no other."""
    node = gang.ranks[number].node
    failures = (*gang.recent_failures, *((node, now) for _ in range(ladder.CONDEMNED)))
    fault = Fault(
        cause=cause, ranks=(number,), rung="in-place", code="device", detected_at=now, step_before=0
    )
    return fail_ranks(replace(gang, recent_failures=failures), fault, now)
