"""The users of an artifact among the workloads of a store."""

from karez.core.artifacts import Artifact
from karez.core.jobs import Job
from karez.core.stores.workloads import WorkloadStore


def user_of(artifact: Artifact, workloads: WorkloadStore) -> str | None:
    """The name of a queued or active workload that uses an artifact."""
    for one in workloads.users_of(artifact.id):
        if isinstance(one, Job):
            used = {*one.spec.inputs.values(), one.spec.code, one.spec.environment}
        else:
            used = {one.spec.model, one.spec.environment}
            used |= {adapter.model for adapter in one.spec.adapters}
        if artifact.id in used:
            return one.spec.name
    return None
