"""Rows of the table of workloads: how jobs and services are written, queried and read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy import Row, Select, or_, select

from karez.core.arrays import ArrayTask, parse_array
from karez.core.codec import from_text, to_text
from karez.core.jobs import UNREADABLE, Job, JobSpec, unreadable_job_spec
from karez.core.services import Replica, Service, ServiceSpec, unreadable_service_spec
from karez.core.workloads import (
    ENDED,
    INITIAL_STATUS,
    WAITING,
    EndReason,
    State,
    Status,
    WorkloadId,
)
from karez.store.schema import workloads as table

S = TypeVar("S", JobSpec, ServiceSpec)
ENDED_STATES = [state.value for state in ENDED]
WAITING_STATES = [state.value for state in WAITING]
# Nearly all queued workloads have this status: parsing it again is half the cost of a row.
_INITIAL_TEXT = to_text(INITIAL_STATUS)


def row_values(kind: str, item: Job | Service | Replica) -> Mapping[str, object]:
    """Column values of a new workload, without its sequence number."""
    return {
        "id": item.id,
        "kind": kind,
        "name": item.spec.name,
        "project": item.spec.project,
        "owner": item.owner,
        "state": item.state.value,
        "priority": item.spec.priority,
        "spec": to_text(item.spec),
        "status": to_text(item.status),
        "wait_reason": "",
        "created_at": item.created_at,
        "epoch": 0,
        **({} if isinstance(item, Service) else group_columns(item)),
    }


def group_columns(job: Job | Replica) -> Mapping[str, object]:
    """Column values of a job of an array or of a replica; none of another job."""
    if isinstance(job, Replica):
        return {"array": job.service, "array_index": job.number}
    if job.array is None:
        return {}
    asked = parse_array(job.spec.array)
    return {
        "array": job.array.id,
        "array_index": job.array.index,
        "array_first": 1 if job.array.index == asked.indices[0] else None,
        "array_limit": asked.limit,
    }


def settled_values(state: State, reason: str, now: float) -> dict[str, object]:
    """Column values of a job that is held no longer."""
    is_over = state in ENDED
    end = EndReason.CANCELLED if is_over else None
    return {
        "state": state.value,
        "wait_reason": "",
        "status": to_text(replace(INITIAL_STATUS, reason=reason, end=end)),
        "ended_at": now if is_over else None,
    }


def select_newest(kind: str, ident: str) -> Select[Any]:
    """SELECT of a workload by id, else the newest of that name."""
    return (
        select(table)
        .where(table.c.kind == kind, or_(table.c.id == ident, table.c.name == ident))
        .order_by((table.c.id == ident).desc(), table.c.seq.desc())
        .limit(1)
    )


def select_all(
    kind: str, projects: Sequence[str] | None, states: Sequence[State], name: str = ""
) -> Select[Any]:
    """SELECT of workloads, newest first. `projects` None means all, empty `states` too."""
    query = select(table).where(table.c.kind == kind)
    if projects is not None:
        query = query.where(table.c.project.in_(projects))
    if name:
        query = query.where(table.c.name == name)
    if states:
        query = query.where(table.c.state.in_([state.value for state in states]))
    return query.order_by(table.c.seq.desc())


def read_job(row: Row[Any]) -> Job:
    """Read a job from its row. One that cannot be read is `unreadable`, and harms no other."""
    spec, status, problem = _read(row, JobSpec, unreadable_job_spec)
    return Job(
        id=WorkloadId(row.id),
        spec=spec,
        state=State(row.state),
        status=status,
        owner=row.owner,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        array=None if row.array is None else ArrayTask(id=row.array, index=row.array_index),
        unreadable=problem,
    )


def read_service(row: Row[Any]) -> Service:
    """Read a service from its row, as `read_job`."""
    spec, status, problem = _read(row, ServiceSpec, unreadable_service_spec)
    return Service(
        id=WorkloadId(row.id),
        spec=spec,
        state=State(row.state),
        status=status,
        owner=row.owner,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        updated_at=row.updated_at,
        revision=row.epoch,
        unreadable=problem,
    )


def read_replica(row: Row[Any]) -> Replica:
    """Read a replica from its row, as `read_job`."""
    spec, status, problem = _read(row, ServiceSpec, unreadable_service_spec)
    return Replica(
        id=WorkloadId(row.id),
        service=WorkloadId(row.array),
        number=row.array_index,
        spec=spec,
        state=State(row.state),
        status=status,
        owner=row.owner,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        unreadable=problem,
    )


def _read(row: Row[Any], kind: type[S], stand_in: Callable[[str, str], S]) -> tuple[S, Status, str]:
    """The specification and status of a row, and why they are stand-ins if they are."""
    try:
        return from_text(kind, row.spec), _status(row), ""
    except ValueError as error:
        problem = f"{UNREADABLE}: {error}"
        return stand_in(row.name, row.project), replace(INITIAL_STATUS, reason=problem), problem


def _status(row: Row[Any]) -> Status:
    status = INITIAL_STATUS if row.status == _INITIAL_TEXT else from_text(Status, row.status)
    if row.state in WAITING_STATES and row.wait_reason:
        return replace(status, reason=row.wait_reason)
    return status


READERS: Mapping[str, Callable[[Row[Any]], Job | Service | Replica]] = {
    "job": read_job,
    "service": read_service,
    "replica": read_replica,
}
"""Kind of a workload -> how its row is read."""
