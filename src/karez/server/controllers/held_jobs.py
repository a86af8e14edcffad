"""Queues held jobs once those that they wait for have ended, and ends those that wait in vain."""

from collections.abc import Mapping
from dataclasses import replace

import structlog

from karez.core.dependencies import waits_for
from karez.core.job_outputs import resolved_inputs
from karez.core.jobs import Job
from karez.core.stores.workloads import WorkloadStore
from karez.core.workloads import State

log = structlog.get_logger()


def settle_held(workloads: WorkloadStore, now: float) -> int:
    """Look at each held job; returns how many were queued or ended. `now` in UTC epoch seconds."""
    settled, reasons, states, outputs = 0, {}, dict[str, State](), dict[str, Mapping[str, str]]()
    for job in workloads.held_jobs():
        if job.unreadable:
            settled += workloads.fail(job.id, job.unreadable, at=now)
            continue
        for dependency in job.spec.after:
            if dependency.job not in states:
                other = workloads.job(dependency.job)
                states[dependency.job] = State.FAILED if other is None else other.state
                outputs[dependency.job] = {} if other is None else other.status.outputs
        verdict = waits_for(job.spec.after, states)
        if verdict.reason and not verdict.is_hopeless:
            if job.status.reason != verdict.reason:
                reasons[job.id] = verdict.reason
            continue
        state, reason = State.CANCELLED if verdict.is_hopeless else State.QUEUED, verdict.reason
        if state == State.QUEUED:
            try:
                inputs = resolved_inputs(job.spec.inputs, outputs)
                job = replace(job, spec=replace(job.spec, inputs=inputs))
            except ValueError as error:
                state, reason = State.CANCELLED, str(error)
        count = _settle(workloads, job, state, reason, now)
        if count:
            states[job.id if job.array is None else job.array.id] = state
            settled += count
            log.info("job.settled", job=job.id, state=state, reason=reason, count=count)
    workloads.explain(reasons)
    return settled


def _settle(workloads: WorkloadStore, job: Job, state: State, reason: str, now: float) -> int:
    """Queue or end a held job, or those of its array; returns how many."""
    if job.array is not None:
        return workloads.settle_array(job.array.id, state, reason, now=now)
    return int(workloads.settle_held(job, state, reason, now=now))
