"""Queues held jobs once those that they wait for have ended, and ends those that wait in vain."""

import structlog

from karez.core.dependencies import waits_for
from karez.core.jobs import Job
from karez.core.stores.workloads import WorkloadStore
from karez.core.workloads import State

log = structlog.get_logger()


def settle_held(workloads: WorkloadStore, now: float) -> int:
    """Look at each held job; returns how many were queued or ended. `now` in UTC epoch seconds."""
    settled, reasons, states = 0, {}, dict[str, State]()
    for job in workloads.held_jobs():
        if job.unreadable:
            settled += workloads.fail(job.id, job.unreadable, at=now)
            continue
        for dependency in job.spec.after:
            if dependency.job not in states:
                other = workloads.job(dependency.job)
                states[dependency.job] = State.FAILED if other is None else other.state
        verdict = waits_for(job.spec.after, states)
        if verdict.reason and not verdict.is_hopeless:
            if job.status.reason != verdict.reason:
                reasons[job.id] = verdict.reason
            continue
        state = State.CANCELLED if verdict.is_hopeless else State.QUEUED
        count = _settle(workloads, job, state, verdict.reason, now)
        if count:
            states[job.id if job.array is None else job.array.id] = state
            settled += count
            log.info("job.settled", job=job.id, state=state, reason=verdict.reason, count=count)
    workloads.explain(reasons)
    return settled


def _settle(workloads: WorkloadStore, job: Job, state: State, reason: str, now: float) -> int:
    """Queue or end a held job, or those of its array; returns how many."""
    if job.array is not None:
        return workloads.settle_array(job.array.id, state, reason, now=now)
    return int(workloads.settle_held(job.id, state, reason, now=now))
