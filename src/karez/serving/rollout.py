"""Rolling update: the replicas of a service are replaced one after the other, or not at all. Pure.

The first one that asks for what is new is a canary. The others follow once it has answered for a
while no worse than they do; else the service goes back to what it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from karez.core.routing import ReplicaLoad
from karez.core.services import Replica, Service, ServiceSpec
from karez.core.workloads import State

CANARY_S: Final = 15.0
"""How long a replica answers requests before the next one is replaced."""
NO_ROOM_S: Final = 10.0
"""How long an additional replica waits for devices before one of before makes room for it."""
FEWEST_ERRORS: Final = 5
FEWEST_ANSWERS: Final = 20
"""Answers of the old and of the new replicas from which on their times are compared."""
MOST_ERRORS: Final = 0.05
"""Part of answers that may be errors, or twice what it was before if that is more."""
SLOWER: Final = 3.0
"""How many times longer the mean answer may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutStep:
    """What is to be done next."""

    start: int = 0
    """Replicas of what is new to queue."""
    stop: int = 0
    """Replicas of before to let go of."""
    back_to: ServiceSpec | None = None
    """What the service asked for before; given if the update has failed."""
    why: str = ""
    """Why it has failed."""
    is_undoing: bool = False
    """Whether the replicas that stay are those of before."""


def next_step(
    service: Service,
    live: Sequence[Replica],
    failed: Sequence[Replica],
    *,
    wanted: int,
    loads: Mapping[str, ReplicaLoad],
    now: float,
) -> RolloutStep | None:
    """The next step of an update; None: all replicas are of the newest specification.

    Args:
        service: With the newest specification.
        live: Its replicas, those that are to stop too.
        failed: Those that failed of late.
        wanted: How many replicas it should have; one more may be there meanwhile.
        loads: URL of a replica -> its requests.
        now: UTC epoch seconds.
    """
    kept = [one for one in live if one.state != State.STOPPING]
    new = [one for one in kept if one.spec.runs_as(service.spec)]
    old = [one for one in kept if not one.spec.runs_as(service.spec)]
    if not old or not wanted:
        return None
    is_undoing = bool(new) and new[0].number < old[-1].number
    if not is_undoing and (why := _objection(service, new, old, failed, loads)):
        return RolloutStep(back_to=old[-1].spec, why=why)
    start, stop = _numbers(new, len(kept), wanted=wanted, now=now)
    if len(kept) < len(live):  # one at a time
        start, stop = min(start, max(0, wanted - len(kept))), 0
    return RolloutStep(start=start, stop=stop, is_undoing=is_undoing)


def _numbers(new: Sequence[Replica], count: int, *, wanted: int, now: float) -> tuple[int, int]:
    """How many new replicas are to start, and how many of the others are to stop."""
    missing = max(0, wanted - count)
    if not new:
        return max(1, missing), 0
    if any(not one.is_ready for one in new):
        waits = any(one.state == State.QUEUED and now - one.created_at > NO_ROOM_S for one in new)
        return missing, int(waits and count > wanted)
    if any(now - (one.started_at or now) < CANARY_S for one in new):
        return missing, 0
    if count > wanted:
        return 0, count - wanted
    return max(1, missing), 0


def _objection(
    service: Service,
    new: Sequence[Replica],
    old: Sequence[Replica],
    failed: Sequence[Replica],
    loads: Mapping[str, ReplicaLoad],
) -> str:
    """Why the update is undone; empty if nothing speaks against it."""
    broken = [one for one in failed if one.spec.runs_as(service.spec)]
    if broken:
        return broken[-1].status.reason
    before, after = _sum(old, loads), _sum(new, loads)
    if after.failed >= FEWEST_ERRORS and after.errors > max(MOST_ERRORS, 2 * before.errors):
        return (
            f"{after.failed} of {after.answered} answers of the new replicas were errors, "
            f"of the others {before.failed} of {before.answered}"
        )
    fewest = min(before.answered, after.answered)
    if fewest >= FEWEST_ANSWERS and after.mean_s > SLOWER * before.mean_s:
        return (
            f"answers of the new replicas took {after.mean_s:.2f} s, "
            f"of the others {before.mean_s:.2f} s"
        )
    return ""


def _sum(replicas: Sequence[Replica], loads: Mapping[str, ReplicaLoad]) -> ReplicaLoad:
    own = [loads[view.url] for one in replicas for view in one.status.ranks if view.url in loads]
    return ReplicaLoad(
        url="",
        inflight=sum(one.inflight for one in own),
        answered=sum(one.answered for one in own),
        failed=sum(one.failed for one in own),
        answer_s=sum(one.answer_s for one in own),
    )
