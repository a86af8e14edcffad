"""Rolling update: the replicas of a service are replaced one after the other, or not at all. Pure.

The first one that asks for what is new is a canary. The others follow once it has answered for a
while no worse than they do; else the service goes back to what it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from karez.core.routing import ReplicaLoad
from karez.core.services import Replica, Service
from karez.core.workloads import State

UPDATING, PUTTING_BACK = "replicas updated", "replicas put back"
"""What a service does while its replicas are replaced."""
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


MOST_CRASHES: Final = 5
"""Crashes of a new replica, ready in between or not."""
PROGRESS_S: Final = 600.0
"""How long a new replica may take to be ready; Kubernetes' progressDeadlineSeconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutStep:
    """What is to be done next."""

    start: int = 0
    """Replicas of what is new to queue."""
    stop: int = 0
    """Replicas of before to let go of."""
    why: str = ""
    """Why the update has failed, and is to be undone."""
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
        failed: Those of the newest specification that failed since the update.
        wanted: How many replicas it should have; one more may be there meanwhile.
        loads: URL of a replica -> its requests.
        now: UTC epoch seconds.
    """
    kept = [one for one in live if one.state != State.STOPPING]
    new = [one for one in kept if one.spec.runs_as(service.spec)]
    old = [one for one in kept if not one.spec.runs_as(service.spec)]
    if service.status.progress is None and not old:
        return None
    doing = service.status.progress
    is_undoing = doing is not None and doing.what == PUTTING_BACK
    if not is_undoing and (why := _objection(new, old, failed, loads, now)):
        return RolloutStep(why=why)
    is_whole = len(new) == len(live) >= max(1, wanted)  # none of before is left, not even to end
    if is_whole and all(_is_trusted(one, now) for one in new):
        return None
    start, stop = _numbers(new, old, wanted=wanted, now=now)
    if len(kept) < len(live):  # one at a time
        start, stop = min(start, max(0, wanted - len(kept))), 0
    return RolloutStep(start=start, stop=stop, is_undoing=is_undoing)


def _is_trusted(replica: Replica, now: float) -> bool:
    """Whether a replica has answered requests for a while."""
    return replica.ready_since is not None and now - replica.ready_since >= CANARY_S


def _numbers(
    new: Sequence[Replica], old: Sequence[Replica], *, wanted: int, now: float
) -> tuple[int, int]:
    """How many new replicas are to start, and how many of the others are to stop."""
    count = len(new) + len(old)
    missing, surplus = max(0, wanted - count), max(0, count - wanted)
    if not wanted:
        return 0, len(old)
    if not new:
        return max(1, missing), 0
    if any(not one.is_ready for one in new):
        waits = any(one.state == State.QUEUED and now - one.created_at > NO_ROOM_S for one in new)
        return missing, int(waits and surplus > 0 and _makes_room(new, old))
    if any(not _is_trusted(one, now) for one in new):
        return missing, 0
    if surplus:
        return 0, min(surplus, len(old))
    return max(int(bool(old)), missing), 0


def _makes_room(new: Sequence[Replica], old: Sequence[Replica]) -> bool:
    """Whether a replica of before may make way: not the last ready one for a larger one."""
    is_alike = all(one.spec.each == new[0].spec.each for one in old)
    return is_alike or sum(one.is_ready for one in old) > 1


def _objection(
    new: Sequence[Replica],
    old: Sequence[Replica],
    failed: Sequence[Replica],
    loads: Mapping[str, ReplicaLoad],
    now: float,
) -> str:
    """Why the update is undone; empty if nothing speaks against it."""
    if failed:
        return failed[-1].status.reason
    for one in new:
        if one.status.retries >= MOST_CRASHES:
            return f"{one.status.reason or 'a new replica crashed'}, {one.status.retries} times"
        if not one.is_ready and one.started_at is None and now - one.created_at > PROGRESS_S:
            what = "had no room" if one.state == State.QUEUED else "was not ready"
            return f"a new replica {what} for {PROGRESS_S / 60:.0f} minutes"
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
