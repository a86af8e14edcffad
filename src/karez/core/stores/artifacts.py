"""Protocol of the store of artifacts."""

from collections.abc import Sequence
from typing import Protocol

from karez.core.artifacts import Artifact, ArtifactKind


class ArtifactStore(Protocol):
    """The registered artifacts."""

    def add(self, artifact: Artifact) -> Artifact:
        """Register an artifact; the same content under the same name is registered once."""
        ...

    def find(self, ident: str, *, projects: Sequence[str] | None = None) -> Artifact | None:
        """Find an artifact by id, else the newest of that name. `projects` None means all."""
        ...

    def projects_with(self, name: str) -> Sequence[str]:
        """Projects that have an artifact of this name, in order."""
        ...

    def list(
        self, *, projects: Sequence[str] | None, kinds: Sequence[ArtifactKind] = ()
    ) -> Sequence[Artifact]:
        """List artifacts, newest first."""
        ...

    def note_blob(self, project: str, digest: str, size_bytes: int) -> None:
        """Note that a project has sent these bytes. Repeatable."""
        ...

    def owned(self, project: str, digests: Sequence[str]) -> set[str]:
        """Those of these digests whose bytes a project has sent, or has in an artifact."""
        ...

    def stored_bytes(self, project: str) -> int:
        """Bytes that a project has sent or has in artifacts, each content once."""
        ...

    def remove(self, ident: str) -> bool:
        """Remove an artifact; its blobs stay for others."""
        ...
