"""Transitions of a gang because time has passed: the deadlines of Limits. Pure."""

import math
from dataclasses import replace

from karez.core.workloads import EndReason
from karez.training.recovery.commands import Decision, ExitRanks, kill_rank
from karez.training.recovery.events import CollectiveFailed
from karez.training.recovery.faults import fail_ranks
from karez.training.recovery.gang_failure import fail_gang
from karez.training.recovery.plain_scripts import complete_plain_recovery
from karez.training.recovery.state import Fault, Gang, Phase, RankPhase

RESUMED = (RankPhase.TRAINING, RankPhase.FINISHED)
JUST_AFTER_S = 0.001
"""A tick acts only after a deadline, not at it."""


def on_tick(gang: Gang, now: float) -> Decision:
    """Act on the first deadline that has passed, if any."""
    limits, late_s = gang.limits, now - gang.since
    if gang.suspect is not None and now - gang.suspect_at > limits.suspect_s:
        return fail_ranks(gang, _collective_fault(gang, gang.suspect), now)
    if gang.phase == Phase.DRAINING and late_s > limits.leave_s:
        return replace(gang, since=now), (ExitRanks(),)  # the first may not have reached all
    if gang.phase == Phase.QUIESCING and late_s > limits.quiesce_s and (stuck := _stuck(gang)):
        why = "did not leave its step in time"
        return replace(gang, since=now), tuple(kill_rank(gang, n, why) for n in stuck)
    awaited = _awaited(gang)
    if awaited and late_s > _start_limit(gang):
        detail = f"{awaited} not ready after {late_s:.0f} s"
        return fail_gang(gang, EndReason.START_FAILED, detail, now)
    return _plain_recovery(gang, now)


def next_deadline(gang: Gang, now: float) -> float:
    """When the next tick after `now` may act; infinite where only events can change the gang."""
    limits = gang.limits
    deadlines = [gang.suspect_at + limits.suspect_s] if gang.suspect is not None else []
    if gang.phase == Phase.DRAINING:
        deadlines.append(gang.since + limits.leave_s)
    elif gang.phase in (Phase.QUIESCING, Phase.RESUMING):
        deadlines += [
            gang.since + limits.quiesce_s,
            gang.since + limits.start_s,
            gang.since + _start_limit(gang),
        ]
    return min((at + JUST_AFTER_S for at in deadlines if at + JUST_AFTER_S > now), default=math.inf)


def _start_limit(gang: Gang) -> float:
    """How long a start may take."""
    limits = gang.limits
    return max(limits.start_s, 2 * gang.slowest_start_s) + limits.prepare_s


def _collective_fault(gang: Gang, suspect: CollectiveFailed) -> Fault:
    """The fault of a broken collective for which no other cause became known."""
    return Fault(
        cause=f"the collective of rank {suspect.rank} broke: {suspect.error}",
        ranks=(),
        rung="retry",
        code="link",
        detected_at=gang.suspect_at,
        step_before=0,
    )


def _stuck(gang: Gang) -> list[int]:
    """Ranks past their start that have not left their step."""
    return [n for n, rank in gang.active if rank.phase == RankPhase.LEAVING]


def _awaited(gang: Gang) -> str:
    """The ranks that the gang waits for and that must be ready within the time for a start."""
    absent = [n for n, rank in gang.active if not rank.is_alive]
    if gang.phase == Phase.QUIESCING and gang.is_session:
        absent = [n for n, rank in gang.active if rank.phase != RankPhase.QUIESCED]
    elif gang.phase == Phase.RESUMING:  # a long first step is the hang detector's to judge
        absent = [n for n, rank in gang.active if rank.phase not in RESUMED]
    elif gang.phase != Phase.QUIESCING:
        return ""
    return f"rank {', '.join(map(str, absent))} was" if absent else ""


def _plain_recovery(gang: Gang, now: float) -> Decision:
    """Complete the recovery of a restarted script without a session that runs long enough."""
    runs = gang.phase == Phase.QUIESCING and all(rank.is_alive for _, rank in gang.active)
    if not runs or now - gang.since <= gang.limits.start_s:
        return gang, ()  # a session that has not begun yet looks the same
    return complete_plain_recovery(gang)
