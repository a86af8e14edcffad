"""Queues held jobs once those that they wait for have ended, and ends those that wait in vain."""

import structlog

from karez.core.dependencies import waits_for
from karez.core.stores.workloads import WorkloadStore
from karez.core.workloads import State

log = structlog.get_logger()
MOST = 100_000
"""Most held jobs that are looked at in one pass."""


def settle_held(workloads: WorkloadStore, now: float) -> int:
    """Look at each held job; returns how many were queued or ended. `now` in UTC epoch seconds."""
    settled, reasons, states = 0, {}, dict[str, State]()
    for job in workloads.jobs(projects=None, states=[State.HELD], limit=MOST):
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
        if workloads.settle_held(job.id, state, verdict.reason, now=now):
            states[job.id] = state
            settled += 1
            log.info("job.settled", job=job.id, state=state, reason=verdict.reason)
    workloads.explain(reasons)
    return settled
