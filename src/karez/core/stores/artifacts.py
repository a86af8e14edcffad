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

    def list(
        self, *, projects: Sequence[str] | None, kinds: Sequence[ArtifactKind] = ()
    ) -> Sequence[Artifact]:
        """List artifacts, newest first."""
        ...

    def remove(self, ident: str) -> bool:
        """Remove an artifact; its blobs stay for others."""
        ...
