"""The users of an artifact among the workloads of a store."""

from karez.core.artifacts import Artifact
from karez.core.stores.workloads import WorkloadStore
from karez.core.workloads import ACTIVE, WAITING

MAX_USERS = 1_000_000
"""Most jobs that are looked through for users of an artifact."""


def user_of(artifact: Artifact, workloads: WorkloadStore) -> str | None:
    """The name of a queued or active workload that uses an artifact."""
    live = (*ACTIVE, *WAITING)
    for job in workloads.jobs(projects=None, states=live, limit=MAX_USERS):
        if artifact.id in (*job.spec.inputs.values(), job.spec.code, job.spec.environment):
            return job.spec.name
    for service in workloads.services(projects=None, states=live):
        if service.spec.model == artifact.id:
            return service.spec.name
    return None
