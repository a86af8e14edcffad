"""The artifact that holds what a job has written into KAREZ_CHECKPOINT_DIR."""

from collections.abc import Sequence

from karez.core.artifacts import (
    Artifact,
    ArtifactId,
    ArtifactKind,
    ArtifactSpec,
    FileEntry,
    Lineage,
    artifact_id,
)
from karez.core.jobs import Job
from karez.core.stores.artifact_users import user_of
from karez.training.controller.controller_deps import ControllerDeps


def stored_checkpoints(job: Job, deps: ControllerDeps) -> tuple[FileEntry, ...]:
    """The files of a job's newest checkpoint artifact; none if there is no such artifact."""
    artifact = _newest(job, deps)
    return artifact.spec.files if artifact is not None else ()


def register_checkpoints(
    job: Job, files: Sequence[FileEntry], deps: ControllerDeps
) -> ArtifactId | None:
    """Register the files as the job's newest checkpoint artifact, in place of the one before.

    One that a queued or active workload uses stays. Returns None where there are no files.
    """
    artifacts = deps.store.artifacts
    before = _newest(job, deps)
    if not files or (before is not None and before.spec.files == tuple(files)):
        return before.id if before is not None and files else None
    spec = ArtifactSpec(
        name=f"{job.id}-checkpoints",
        kind=ArtifactKind.CHECKPOINT,
        project=job.spec.project,
        files=tuple(files),
        lineage=Lineage(job=job.id, inputs=job.spec.inputs),
    )
    ident = artifact_id(spec)
    artifacts.remove(ident)  # an older one of the same content would not become the newest
    artifacts.add(Artifact(id=ident, spec=spec, owner=job.owner, created_at=deps.clock.now()))
    if before is not None and before.id != ident and not user_of(before, deps.store.workloads):
        artifacts.remove(before.id)
    return ident


def _newest(job: Job, deps: ControllerDeps) -> Artifact | None:
    """The job's newest one, by its lineage: anyone may give an artifact any name."""
    project = [job.spec.project]
    for artifact in deps.store.artifacts.list(projects=project, kinds=[ArtifactKind.CHECKPOINT]):
        if artifact.spec.lineage.job == job.id:
            return artifact
    return None
