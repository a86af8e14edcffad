"""Ends batches that wait still when their time is over."""

from karez.core.batches import BATCH_CALLS
from karez.core.stores.workloads import WorkloadStore
from karez.core.workloads import State

MOST = 10_000


def end_late_batches(workloads: WorkloadStore, now: float) -> None:
    """Request their end. `now` is in UTC epoch seconds."""
    for job in workloads.jobs(projects=None, states=(State.QUEUED, State.HELD), limit=MOST):
        is_batch = job.spec.recipe == BATCH_CALLS and not job.unreadable
        if is_batch and float(job.spec.settings["deadline"]) < now:
            workloads.request_stop(job.id, at=now)
