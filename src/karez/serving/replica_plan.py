"""Which replicas of a service are to start and to stop, and what the service has become. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from karez.core.routing import ReplicaLoad
from karez.core.services import Replica, Service, ServiceSpec
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
from karez.serving.rollout import RolloutStep, next_step

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
    back_to: ServiceSpec | None = None
    """What the service asks for again, because an update has failed."""


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
    failed = [
        one for one in replicas if one.state == State.FAILED and one.spec.runs_as(service.spec)
    ]
    if service.state == State.STOPPING:
        return _stop(service, live, State.CANCELLED, EndReason.CANCELLED, "stopped by request")
    if failed and all(one.started_at is None for one in live):
        last = failed[-1].status
        return _stop(service, live, State.FAILED, last.end, last.reason)
    kept = [one for one in live if one.state != State.STOPPING]
    step = next_step(service, live, failed, wanted=wanted, loads=loads, now=now)
    status = _status(service, live, failed, wanted)
    if step is not None and step.back_to is not None:
        status = replace(status, notices=(_undone(step.why),))
        return ReplicaPlan(state=_state(live, wanted), status=status, back_to=step.back_to)
    if step is not None:
        new = [one for one in kept if one.spec.runs_as(service.spec)]
        what = "replicas put back" if step.is_undoing else "replicas updated"
        done = sum(one.is_ready for one in new)
        notices = status.notices if step.is_undoing else ()
        doing = Progress(what=what, done=min(done, wanted), of=wanted)
        status = replace(status, progress=doing, notices=notices)
        going = [one for one in sorted(kept, key=_worth) if one not in new][: step.stop]
    else:
        step = RolloutStep(start=max(0, wanted - len(kept)))
        going = sorted(kept, key=_worth)[: max(0, len(kept) - wanted)]
    is_early = bool(failed) and now - (failed[-1].ended_at or now) < FAILED_PAUSE_S
    return ReplicaPlan(
        start=0 if is_early else step.start,
        stop=tuple(one.id for one in going),
        state=_state(live, wanted),
        status=status,
    )


def instead_of_failure(service: Service, plan: ReplicaPlan, last: Replica) -> ReplicaPlan:
    """The plan for a service that has failed: one that was updated goes back to what it was.

    `last` is the newest replica of the service that was ever ready.
    """
    if last.spec.runs_as(service.spec):
        return plan
    notices = (_undone(plan.status.reason),)
    status = replace(service.status, ranks=(), reason="", notices=notices, progress=None)
    return ReplicaPlan(stop=plan.stop, state=State.QUEUED, status=status, back_to=last.spec)


def _undone(why: str) -> str:
    return f"the update was undone: {why}"


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
    return replace(base, ranks=ranks, reason=reason, progress=None)
