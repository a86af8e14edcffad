"""Which replicas of a service are to start and to stop, and what the service has become. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from karez.core.services import Replica, Service
from karez.core.workloads import ACTIVE, ENDED, INITIAL_STATUS, EndReason, State, Status, WorkloadId

FAILED_PAUSE_S = 60.0
"""How long a service with a ready replica waits before it replaces one that failed."""
IDLE_REASON = "no replica: the next request starts one"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaPlan:
    """What is to be done for a service."""

    start: int = 0
    """Replicas to queue."""
    stop: tuple[WorkloadId, ...] = ()
    """Replicas to let go of."""
    state: State
    status: Status


def plan_replicas(
    service: Service, replicas: Sequence[Replica], *, wanted: int, now: float
) -> ReplicaPlan:
    """Compare the replicas of a service with how many are wanted.

    Args:
        service: As it is stored.
        replicas: Its live ones, and those that ended in the last FAILED_PAUSE_S, oldest first.
        wanted: How many it should have.
        now: UTC epoch seconds.
    """
    live = [one for one in replicas if one.state not in ENDED]
    failed = [one for one in replicas if one.state == State.FAILED]
    if service.state == State.STOPPING:
        return _stop(service, live, State.CANCELLED, EndReason.CANCELLED, "stopped by request")
    if failed and all(one.started_at is None for one in live):
        last = failed[-1].status
        return _stop(service, live, State.FAILED, last.end, last.reason)
    kept = [one for one in live if one.state != State.STOPPING]
    surplus = sorted(kept, key=_worth)[: max(0, len(kept) - wanted)]
    missing = max(0, wanted - len(kept))
    if failed and now - (failed[-1].ended_at or now) < FAILED_PAUSE_S:
        missing = 0
    return ReplicaPlan(
        start=missing,
        stop=tuple(one.id for one in surplus),
        state=_state(live, wanted),
        status=_status(service, live, failed, wanted),
    )


def _stop(
    service: Service, live: Sequence[Replica], state: State, end: EndReason | None, reason: str
) -> ReplicaPlan:
    """The end of a service, once its replicas have ended."""
    going = tuple(one.id for one in live if one.state != State.STOPPING)
    if live and state == State.CANCELLED:
        return ReplicaPlan(stop=going, state=State.STOPPING, status=service.status)
    status = replace(service.status, end=end, reason=reason, ranks=())
    return ReplicaPlan(stop=going, state=state, status=status)


def _worth(replica: Replica) -> tuple[bool, bool, int]:
    """Sort key: those that do the least for callers go first, the newest of these before others."""
    return (replica.is_ready, replica.state in ACTIVE, -replica.number)


def _state(live: Sequence[Replica], wanted: int) -> State:
    if any(one.is_ready for one in live):
        return State.RUNNING
    if any(one.state in ACTIVE for one in live):
        return State.STARTING
    return State.QUEUED if wanted or live else State.IDLE


def _status(
    service: Service, live: Sequence[Replica], failed: Sequence[Replica], wanted: int
) -> Status:
    told = [one.status.reason for one in (*live, *failed) if not one.is_ready]
    reason = next(filter(None, told), "")
    if not live and not wanted:
        reason = IDLE_REASON
    ranks = tuple(view for one in live for view in one.views)
    base = INITIAL_STATUS if service.status.end else service.status
    return replace(base, ranks=ranks, reason=reason)
