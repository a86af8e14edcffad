"""Converts jobs and replicas of the store to what the scheduling engine reads. Pure."""

from karez.core.jobs import Job
from karez.core.services import Replica
from karez.core.workloads import Allocation, WorkloadKind
from karez.scheduling.queue.order import PendingWorkload
from karez.scheduling.snapshot import AllocatedWorkload


def to_pending(item: Job | Replica) -> PendingWorkload:
    """Convert a job or replica to a queued workload."""
    return _pending_job(item) if isinstance(item, Job) else _pending_replica(item)


def to_allocated(item: Job | Replica, allocation: Allocation) -> AllocatedWorkload:
    """Convert a job or replica and its devices to an allocated workload."""
    ends_by = None
    if isinstance(item, Job):
        runs_s = item.spec.expected_duration_s or item.spec.max_duration_s
        began_at = item.started_at or allocation.since
        ends_by = began_at + runs_s if runs_s else None
    return AllocatedWorkload(
        allocation=allocation,
        project=item.spec.project,
        ends_by=ends_by,
        waiting=to_pending(item),
    )


def _pending_job(job: Job) -> PendingWorkload:
    spec = job.spec
    return PendingWorkload(
        id=job.id,
        project=spec.project,
        gang=spec.gang,
        priority=spec.priority,
        since=job.created_at,
        max_duration_s=spec.max_duration_s,
        expected_s=spec.expected_duration_s,
        done_s=job.status.ran_s if spec.kind == WorkloadKind.TRAIN else 0.0,
        preemptible=spec.preemptible,
        resumes=spec.kind == WorkloadKind.TRAIN,
        deadline_at=None if spec.deadline_s is None else job.created_at + spec.deadline_s,
    )


def _pending_replica(replica: Replica) -> PendingWorkload:
    return PendingWorkload(
        id=replica.id,
        project=replica.spec.project,
        gang=replica.gang,
        priority=replica.spec.priority,
        since=replica.created_at,
        done_s=replica.status.ran_s,
        preemptible=False,
    )
