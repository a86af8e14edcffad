"""Which replicas of a service are to start and to stop, and what the service has become. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from karez.core.routing import ReplicaLoad
from karez.core.services import Replica, Service
from karez.core.workloads import (
    ACTIVE,
    ENDED,
    INITIAL_STATUS,
    EndReason,
    Progress,
    State,
    Status,
    WorkloadId,
)
from karez.serving.rollout import PUTTING_BACK, UPDATING, RolloutStep, next_step

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
    undone: str = ""
    """Why an update is to be undone, that is, the service is to ask for what it did before."""


def plan_replicas(
    service: Service,
    replicas: Sequence[Replica],
    *,
    wanted: int,
    loads: Mapping[str, ReplicaLoad],
    now: float,
) -> ReplicaPlan:
    """Compare the replicas of a service with how many of which kind are wanted.

    Args:
        service: As it is stored.
        replicas: Its live ones, and those that ended in the last FAILED_PAUSE_S, oldest first.
        wanted: How many it should have.
        loads: URL of a replica -> its requests.
        now: UTC epoch seconds.
    """
    live = [one for one in replicas if one.state not in ENDED]
    since = service.updated_at or 0.0
    failed = [
        one
        for one in replicas
        if one.state == State.FAILED and one.created_at >= since and one.spec.runs_as(service.spec)
    ]
    if service.state == State.STOPPING:
        return _stop(service, live, State.CANCELLED, EndReason.CANCELLED, "stopped by request")
    if service.unreadable:
        return _stop(service, live, State.FAILED, EndReason.START_FAILED, service.unreadable)
    if failed and all(one.started_at is None for one in live):
        last, doing = failed[-1].status, service.status.progress
        is_update = doing is not None and doing.what == UPDATING
        failure = _stop(service, live, State.FAILED, last.end, last.reason)
        return replace(failure, undone=last.reason if is_update else "")
    status = _status(service, live, failed, wanted)
    kept = [one for one in live if one.state != State.STOPPING]
    step = next_step(service, live, failed, wanted=wanted, loads=loads, now=now)
    if step is None:
        step = RolloutStep(start=max(0, wanted - len(kept)))
        going = sorted(kept, key=_worth)[: max(0, len(kept) - wanted)]
        status = replace(status, progress=None)
    else:
        new = [one for one in kept if one.spec.runs_as(service.spec)]
        what = PUTTING_BACK if step.is_undoing else UPDATING
        done = sum(one.is_ready for one in new)
        doing = Progress(what=what, done=min(done, wanted), of=wanted)
        status = replace(status, progress=doing)
        rest = [one for one in sorted(kept, key=_worth) if one not in new]
        going = rest[: step.stop]
    is_early = bool(failed) and now - (failed[-1].ended_at or now) < FAILED_PAUSE_S
    return ReplicaPlan(
        start=0 if is_early else step.start,
        stop=tuple(one.id for one in going),
        state=_state(live, wanted),
        status=status,
        undone=step.why,
    )


def undo(service: Service, plan: ReplicaPlan) -> Status:
    """The status of a service whose update is undone."""
    notices = (f"the update was undone: {plan.undone}",)
    ranks = () if plan.state == State.FAILED else plan.status.ranks
    of = 1 if service.status.progress is None else service.status.progress.of
    doing = Progress(what=PUTTING_BACK, of=of)
    return replace(service.status, ranks=ranks, reason="", notices=notices, progress=doing)


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
