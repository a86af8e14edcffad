"""Artifacts: store bytes, register, show, list, remove."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from typing_extensions import override

from karez.core.artifacts import (
    ID_PREFIX,
    KEPT_UNTIL,
    Artifact,
    ArtifactKind,
    ArtifactSpec,
    FileEntry,
    FileMode,
    artifact_id,
    is_inside,
    problem_with_paths,
)
from karez.core.errors import AmbiguousName, BadRequest, LimitExceeded, NotFound
from karez.core.identity import Principal, Project, Role
from karez.core.names import check_label, split_name
from karez.core.ports import BlobStore, BlobWriter, Clock
from karez.core.python_environments import REQUIREMENTS, parse_requirements
from karez.core.stores.artifact_users import user_of
from karez.core.stores.artifacts import ArtifactStore
from karez.core.stores.workloads import WorkloadStore
from karez.core.units import show_bytes
from karez.server.services.permissions import Permissions, visible_projects

MAX_REQUIREMENTS_BYTES = 1 << 20
MAX_LINK_BYTES = 4096
"""Longest target of a symbolic link: Linux's PATH_MAX."""


def _check_storage(project: Project, size_bytes: int) -> None:
    """Raise LimitExceeded if a project may not store so many bytes."""
    limit = project.limits.storage_bytes
    if limit is not None and size_bytes > limit:
        text = f"{show_bytes(limit)} stored"
        raise LimitExceeded(project=project.name, limit=text, asked=show_bytes(size_bytes))


class _OwnedBlob(BlobWriter):
    """A blob that belongs to a project once it is whole."""

    def __init__(
        self, inner: BlobWriter, store: ArtifactStore, project: Project, stored_bytes: int
    ) -> None:
        self._inner, self._store = inner, store
        self._project, self._stored_bytes = project, stored_bytes
        self.size_bytes = 0

    @override
    def write(self, chunk: bytes) -> None:
        _check_storage(self._project, self._stored_bytes + self.size_bytes + len(chunk))
        self._inner.write(chunk)
        self.size_bytes = self._inner.size_bytes

    @override
    def finish(self) -> FileEntry:
        entry = self._inner.finish()
        self._store.note_blob(self._project.name, entry.sha256, entry.size_bytes)
        return entry

    @override
    def abort(self) -> None:
        self._inner.abort()


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactService:
    """Artifacts of the projects that a key may see."""

    store: ArtifactStore
    workloads: WorkloadStore
    blobs: BlobStore
    permissions: Permissions
    clock: Clock

    def writer(self, who: Principal, project: str, digest: str) -> BlobWriter:
        """Begin to store bytes for a project. Raises NotAllowed, LimitExceeded."""
        name = self.permissions.project_of(who, project)
        owner = self.permissions.require(who, name, Role.MEMBER)
        is_limited = owner.limits.storage_bytes is not None
        stored_bytes = self.store.stored_bytes(name) if is_limited else 0
        _check_storage(owner, stored_bytes + 1)  # of a full project nothing is read
        return _OwnedBlob(self.blobs.writer(expect=digest), self.store, owner, stored_bytes)

    def missing(self, who: Principal, project: str, digests: Sequence[str]) -> list[str]:
        """Those of these digests whose bytes a project has not sent, or that are not here."""
        project = self.permissions.project_of(who, project)
        self.permissions.require(who, project, Role.MEMBER)
        owned = self.store.owned(project, digests)
        return [one for one in digests if one not in owned or not self.blobs.has(one)]

    def register(self, who: Principal, spec: ArtifactSpec) -> Artifact:
        """Register an artifact. Raises BadRequest unless its files are in the blob store."""
        spec = replace(spec, project=self.permissions.project_of(who, spec.project))
        self.permissions.require(who, spec.project, Role.MEMBER)
        check_label(spec.name)
        if spec.lineage.job or spec.lineage.receipts or KEPT_UNTIL in spec.facts:
            raise BadRequest(
                problem="only the cloud itself says which job and receipts an artifact is of",
                fix="Say where it comes from as `source`.",
            )
        spec = replace(spec, lineage=replace(spec.lineage, declared=True))
        if problem := problem_with_paths(spec.files):
            raise BadRequest(problem=f"these files make no artifact: {problem}")
        owned = self.store.owned(spec.project, [file.sha256 for file in spec.files])
        for file in spec.files:
            if file.sha256 not in owned or not self.blobs.has(file.sha256):
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
        """One artifact by id, name or PROJECT/NAME. Raises NotFound, AmbiguousName."""
        name, projects = ident, visible_projects(who)
        artifact = self.store.find(name, projects=projects)
        if artifact is None:  # else it is a name of an earlier release, with a separator in it
            project, name = split_name(ident)
            projects = projects if not project else (project,) * who.sees(project)
            artifact = self.store.find(name, projects=projects)
        if artifact is None:
            raise NotFound(noun="artifact", name=ident)
        if projects is None and artifact.id != name:
            known = self.store.projects_with(name)
            if len(known) > 1:
                which = ", ".join(f"{one}/{name}" for one in known)
                raise AmbiguousName(noun="artifact", name=name, count=len(known), which=which)
        return artifact

    def of(self, who: Principal, project: str, ident: str) -> Artifact:
        """One artifact that a workload of a project names: a name alone is one of that project.

        Raises:
            NotFound: There is none that the key may see.
        """
        artifact = self.store.find(ident, projects=[project] * who.sees(project))
        if artifact is not None:
            return artifact
        named, name = split_name(ident)
        if named or name.startswith(ID_PREFIX):
            return self.get(who, ident)
        raise NotFound(noun="artifact", name=f"{project}/{name}")

    def environment(self, who: Principal, project: str, ident: str) -> str:
        """The id of an environment that a workload names; empty: none.

        Raises:
            NotFound: There is none that the key may see.
            BadRequest: It is something else.
        """
        if not ident:
            return ""
        found = self.of(who, project, ident)
        if found.spec.kind != ArtifactKind.ENVIRONMENT:
            raise BadRequest(
                problem=f"{ident} is a {found.spec.kind}, no environment",
                fix="`karez environments list` shows what there is.",
            )
        return found.id

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
