"""Jobs over HTTP."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query

from karez.core.api_models import LogPiece, ReceiptView
from karez.core.chaos import SHARED, FaultSpec, InjectedFault
from karez.core.codec import MAX_INTEGER, MAX_STEP
from karez.core.fault_injection import OLD_FAULT_NAMES
from karez.core.goodput import Goodput
from karez.core.identity import Role
from karez.core.jobs import Job, JobSpec
from karez.core.receipts import SignedReceipts
from karez.core.recovery import Transition
from karez.core.traces import Trace
from karez.core.usage import MetricRow
from karez.core.workloads import State
from karez.server.api.authorization import CloudDep, Who, allow, old_name

router = APIRouter(prefix="/jobs", tags=["jobs"])

_EXAMPLE = {
    "name": "support-tune",
    "kind": "train",
    "recipe": "sft-lora",
    "settings": {"steps": 60},
    "inputs": {"model": "smollm2-135m-instruct", "data": "intent-router"},
    "gang": {"min": 1, "want": 2, "each": [{"kind": "cpu", "milli": 1000}]},
}


@router.post("", status_code=201, **allow(Role.MEMBER))
def submit_job(
    spec: Annotated[JobSpec, Body(examples=[_EXAMPLE])],
    cloud: CloudDep,
    who: Who,
    idempotency_key: Annotated[str, Header()] = "",
    dry_run: Annotated[bool, Query(description="Check the job, and queue nothing.")] = False,
) -> Job:
    """Queue a job. It starts once its whole gang fits.

    Sending the same Idempotency-Key again gives the same job.
    """
    if dry_run:
        return cloud.jobs.check(who, spec)
    return cloud.jobs.submit(who, spec, idempotency_key=idempotency_key)


@router.get("", **allow(Role.VIEWER))
def list_jobs(
    cloud: CloudDep,
    who: Who,
    state: Annotated[list[State] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    array: Annotated[str, Query(description="List the jobs of this array.")] = "",
) -> Sequence[Job]:
    """The jobs you may see, newest first.

    An array is shown as one job, unless its jobs or those in some states are asked for.
    """
    return cloud.jobs.list(who, state or [], limit, array=array)


@router.get("/{job}", **allow(Role.VIEWER))
def show_job(job: str, cloud: CloudDep, who: Who) -> Job:
    """One job, or an array as one, by id or by name (the newest of that name)."""
    return cloud.jobs.get(who, job)


@router.post("/{job}/cancel", **allow(Role.MEMBER))
def cancel_job(job: str, cloud: CloudDep, who: Who) -> Job:
    """Request the end of a job, or of all jobs of an array. A job that has ended is unchanged."""
    return cloud.jobs.cancel(who, job)


@router.get("/{job}/metrics", **allow(Role.VIEWER))
def job_metrics(
    job: str, cloud: CloudDep, who: Who, after: Annotated[int, Query(ge=-1, le=MAX_STEP)] = -1
) -> Sequence[MetricRow]:
    """The loss of each rank at each step after `after`."""
    return cloud.store.history.metrics(cloud.jobs.one(who, job).id, after=after)


@router.get("/{job}/receipts", **allow(Role.VIEWER))
def job_receipts(job: str, cloud: CloudDep, who: Who) -> list[ReceiptView]:
    """One receipt per recovery, oldest first."""
    return cloud.recovery.receipts(cloud.jobs.one(who, job))


@router.get("/{job}/receipts/signed", **allow(Role.VIEWER))
def signed_receipts(job: str, cloud: CloudDep, who: Who) -> SignedReceipts:
    """All receipts with a signed head, by which their end can be verified too."""
    return cloud.recovery.signed_receipts(cloud.jobs.one(who, job))


@router.get("/{job}/goodput", **allow(Role.VIEWER))
def job_goodput(job: str, cloud: CloudDep, who: Who) -> Goodput:
    """The share of a job's time that went into steps that count, and the cost of recoveries."""
    return cloud.recovery.goodput(cloud.jobs.one(who, job))


@router.get("/{job}/transitions", **allow(Role.VIEWER))
def job_transitions(job: str, cloud: CloudDep, who: Who) -> Sequence[Transition]:
    """The log of the job's recovery protocol, oldest first."""
    return cloud.store.history.transitions(cloud.jobs.one(who, job).id)


@router.get("/{job}/trace", **allow(Role.VIEWER))
def job_trace(job: str, cloud: CloudDep, who: Who) -> Trace:
    """A job's way through the queue, starts, steps and recoveries, as spans."""
    return cloud.recovery.trace(cloud.jobs.one(who, job))


@router.post("/{job}/faults", **allow(Role.ADMIN))
def inject_faults(
    job: str, specs: list[FaultSpec], cloud: CloudDep, who: Who
) -> list[InjectedFault]:
    """Inject faults into a job that allows it; `at` is when each happens, by control's clock."""
    target = cloud.jobs.one(who, job)
    cloud.permissions.require(who, target.spec.project, Role.ADMIN)
    if any(spec.what in SHARED for spec in specs):
        cloud.permissions.require_everywhere(who)  # others have work there too
    return cloud.recovery.inject(target, specs)


@router.post("/{job}/harm", **old_name(Role.ADMIN))
def inject_faults_by_old_names(
    job: str, specs: list[FaultSpec], cloud: CloudDep, who: Who
) -> list[dict[str, Any]]:
    """Inject faults for a client of karez 0.1: the answer has its names of faults."""
    old = {kind: name for name, kind in OLD_FAULT_NAMES.items()}
    return [
        {"what": old.get(fault.what, fault.what.value), "rank": fault.rank, "at": fault.at}
        for fault in inject_faults(job, specs, cloud, who)
    ]


@router.get("/{job}/logs", **allow(Role.VIEWER))
def job_logs(job: str, cloud: CloudDep, who: Who) -> list[str]:
    """The names of a job's log files."""
    return cloud.logs.names(cloud.jobs.one(who, job).id)


@router.get("/{job}/logs/{name}", **allow(Role.VIEWER))
def job_log(
    job: str,
    name: str,
    cloud: CloudDep,
    who: Who,
    offset: Annotated[int, Query(ge=0, le=MAX_INTEGER)] = 0,
    limit: Annotated[int, Query(ge=1, le=4 << 20)] = 1 << 20,
) -> LogPiece:
    """A piece of one log file."""
    return cloud.logs.read(cloud.jobs.one(who, job).id, name, offset, limit)
