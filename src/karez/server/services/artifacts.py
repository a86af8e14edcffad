"""Artifacts: store bytes, register, show, list, remove."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from karez.core.artifacts import (
    Artifact,
    ArtifactKind,
    ArtifactSpec,
    FileEntry,
    FileMode,
    artifact_id,
    is_inside,
    problem_with_paths,
)
from karez.core.errors import BadRequest, NotFound
from karez.core.identity import Principal, Role
from karez.core.ports import Blobs, Clock
from karez.core.python_environments import REQUIREMENTS, parse_requirements
from karez.core.stores.artifact_users import user_of
from karez.core.stores.artifacts import ArtifactStore
from karez.core.stores.workloads import WorkloadStore
from karez.server.services.permissions import Permissions, visible_projects

MAX_REQUIREMENTS_BYTES = 1 << 20
MAX_LINK_BYTES = 4096
"""Longest target of a symbolic link: Linux's PATH_MAX."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactService:
    """Artifacts of the projects that a key may see."""

    store: ArtifactStore
    workloads: WorkloadStore
    blobs: Blobs
    permissions: Permissions
    clock: Clock

    def put_blob(self, stream: BinaryIO, expect: str) -> FileEntry:
        """Store bytes under their digest."""
        return self.blobs.put(stream, expect=expect)

    def register(self, who: Principal, spec: ArtifactSpec) -> Artifact:
        """Register an artifact. Raises BadRequest unless its files are in the blob store."""
        spec = replace(spec, project=self.permissions.project_of(who, spec.project))
        self.permissions.require(who, spec.project, Role.MEMBER)
        if problem := problem_with_paths(spec.files):
            raise BadRequest(problem=f"these files make no artifact: {problem}")
        for file in spec.files:
            if not self.blobs.has(file.sha256):
                raise BadRequest(problem=f"the bytes of {file.path} were not uploaded")
            if file.mode == FileMode.LINK and not self._stays_inside(file):
                raise BadRequest(problem=f"{file.path} is a link out of the artifact")
        if spec.kind == ArtifactKind.ENVIRONMENT:
            self._check_requirements(spec)
        artifact = Artifact(
            id=artifact_id(spec), spec=spec, owner=who.name, created_at=self.clock.now()
        )
        return self.store.add(artifact)

    def _check_requirements(self, spec: ArtifactSpec) -> None:
        """Check that nodes can install an environment. Raises BadRequest."""
        for file in spec.files:
            if file.path == REQUIREMENTS and file.size_bytes <= MAX_REQUIREMENTS_BYTES:
                with self.blobs.open(file.sha256) as content:
                    text = content.read().decode(errors="replace")
                try:
                    parse_requirements(REQUIREMENTS, text)
                except ValueError as error:
                    raise BadRequest(problem=str(error)) from error
                return
        raise BadRequest(
            problem=f"an environment has a file {REQUIREMENTS} of up to 1 MiB",
            fix="Use `karez environments add`.",
        )

    def _stays_inside(self, link: FileEntry) -> bool:
        with self.blobs.open(link.sha256) as file:
            target = file.read(MAX_LINK_BYTES + 1)
        return len(target) <= MAX_LINK_BYTES and is_inside(link.path, os.fsdecode(target))

    def get(self, who: Principal, ident: str) -> Artifact:
        """One artifact by id or name. Raises NotFound."""
        artifact = self.store.find(ident, projects=visible_projects(who))
        if artifact is None:
            raise NotFound(noun="artifact", name=ident)
        return artifact

    def list(self, who: Principal, kinds: Sequence[ArtifactKind]) -> Sequence[Artifact]:
        """Artifacts that a key may see, newest first."""
        return self.store.list(projects=visible_projects(who), kinds=kinds)

    def remove(self, who: Principal, ident: str) -> None:
        """Delete an artifact. Raises BadRequest while a queued or active workload uses it."""
        artifact = self.get(who, ident)
        self.permissions.require(who, artifact.spec.project, Role.MEMBER)
        user = user_of(artifact, self.workloads)
        if user is not None:
            raise BadRequest(
                problem=f"{artifact.spec.name} is in use by {user}",
                fix=f"Stop {user} first.",
            )
        self.store.remove(artifact.id)
