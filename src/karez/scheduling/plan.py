"""From a snapshot of the cloud to the next decisions. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from karez.core.identity import Project
from karez.core.resources import DeviceKind, Grant, Node
from karez.core.units import show_devices
from karez.core.workloads import Allocation, GangSpec, WorkloadId
from karez.scheduling.place import Placed, place
from karez.scheduling.pool import free_pool

PATIENCE_S = 60.0
"""How long the first in line lets smaller ones pass without knowing when they end. Our choice:
short beside training jobs, long beside the wait for a slot to free up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A workload in the queue."""

    id: WorkloadId
    project: str
    gang: GangSpec
    priority: int
    since: float
    order: int = 0
    max_duration_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A workload that holds devices."""

    allocation: Allocation
    project: str
    ends_by: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The cloud at one moment: nothing in it changes."""

    nodes: Sequence[Node] = ()
    waiting: Sequence[Waiting] = ()
    running: Sequence[Running] = ()
    projects: Mapping[str, Project] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Give a workload its devices now."""

    id: WorkloadId
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Leave a workload in the queue, with the reason."""

    id: WorkloadId
    reason: str


def plan(snapshot: Snapshot, *, now: float) -> tuple[Start | Wait, ...]:
    """Start what fits: higher priority first, then older; smaller ones may fill gaps.

    The first that does not fit holds a reservation: once it has waited PATIENCE_S, a later one
    passes only if it surely ends before the reservation begins.
    """
    held = [grant for run in snapshot.running for grant in run.allocation.grants]
    pool = free_pool(snapshot.nodes, held)
    used = _used(snapshot.running)
    refused: dict[GangSpec, str] = {}
    blocked: Waiting | None = None
    opens_at: float | None = None
    decisions: list[Start | Wait] = []
    queue = sorted(snapshot.waiting, key=lambda w: (-w.priority, w.since, w.order))
    for waiting in queue:
        gang, reason = _within_quota(waiting, snapshot.projects, used)
        if not reason and blocked is not None:
            reason = _must_not_pass(waiting, blocked, opens_at, now)
        if not reason and gang in refused:
            reason = refused[gang]
        if reason:
            decisions.append(Wait(id=waiting.id, reason=reason))
            continue
        answer = place(gang, pool)
        if isinstance(answer, Placed):
            _count(used, waiting.project, answer.grants)
            decisions.append(Start(id=waiting.id, grants=answer.grants))
            continue
        refused[gang] = answer.reason
        decisions.append(Wait(id=waiting.id, reason=answer.reason))
        if blocked is None:
            blocked, opens_at = waiting, _opens_at(waiting, snapshot)
    return tuple(decisions)


def _must_not_pass(waiting: Waiting, blocked: Waiting, opens_at: float | None, now: float) -> str:
    if now - blocked.since <= PATIENCE_S:
        return ""
    ends_at = None if waiting.max_duration_s is None else now + waiting.max_duration_s
    if opens_at is not None and ends_at is not None and ends_at <= opens_at:
        return ""
    return f"{blocked.id} is first in line and has waited long; set max_duration to pass it safely"


def _opens_at(blocked: Waiting, snapshot: Snapshot) -> float | None:
    """When enough running workloads surely have ended for the first in line; None: unknown."""
    ends = sorted(run.ends_by for run in snapshot.running if run.ends_by is not None)
    for at in ends:
        still = [
            grant
            for run in snapshot.running
            if run.ends_by is None or run.ends_by > at
            for grant in run.allocation.grants
        ]
        if isinstance(place(blocked.gang, free_pool(snapshot.nodes, still)), Placed):
            return at
    return None


def _used(running: Sequence[Running]) -> dict[tuple[str, DeviceKind], int]:
    used: dict[tuple[str, DeviceKind], int] = {}
    for run in running:
        _count(used, run.project, run.allocation.grants)
    return used


def _count(used: dict[tuple[str, DeviceKind], int], project: str, grants: Sequence[Grant]) -> None:
    for grant in grants:
        used[project, grant.kind] = used.get((project, grant.kind), 0) + grant.milli


def _within_quota(
    waiting: Waiting,
    projects: Mapping[str, Project],
    used: Mapping[tuple[str, DeviceKind], int],
) -> tuple[GangSpec, str]:
    """The gang with only the alternatives that its project may still hold, or why there are none.

    A gang whose wanted size is over the quota is offered fewer workers, down to its minimum.
    """
    gang, project = waiting.gang, projects.get(waiting.project)
    if project is None or not project.quota_milli:
        return gang, ""
    allowed, reasons, want = [], [], gang.min
    for need in gang.each:
        quota = project.quota_milli.get(need.kind)
        held = used.get((waiting.project, need.kind), 0)
        room = gang.want if quota is None else (quota - held) // need.milli
        if room >= gang.min:
            allowed.append(need)
            want = max(want, min(gang.want, room))
            continue
        reasons.append(
            f"quota of project {waiting.project}: {show_devices(held)} of "
            f"{show_devices(quota or 0)} {need.kind} held, "
            f"{show_devices(need.milli * gang.min)} more asked"
        )
    if not allowed:
        return gang, "; or ".join(reasons)
    if len(allowed) > 1 and want < gang.want:
        allowed = allowed[:1]  # one limit cannot hold for two kinds at once
    return replace(gang, each=tuple(allowed), want=want), ""
