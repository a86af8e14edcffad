"""Ends the keys with which jobs called models, once the jobs have ended."""

from karez.core.stores.access import AccessStore
from karez.core.stores.workloads import WorkloadStore
from karez.core.workloads import ENDED

UNKNOWN_S = 60.0
"""How long a key may be there before its job: it is made first."""


def end_job_keys(store: AccessStore, workloads: WorkloadStore, now: float) -> None:
    """Drop the keys of jobs that have ended. `now` is in UTC epoch seconds."""
    for key in store.keys():
        if not key.made_for:
            continue
        job = workloads.job(key.made_for)
        is_new = job is None and now - key.created_at < UNKNOWN_S
        if not is_new and (job is None or job.state in ENDED):
            store.drop_key(key.id)
