"""Protocol of the store of projects, keys and secrets."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from karez.core.identity import Key, Project


class AccessStore(Protocol):
    """Projects, keys and secrets."""

    def add_project(self, project: Project) -> None:
        """Add a project. Raises AlreadyExists."""
        ...

    def set_quota(self, project: Project) -> bool:
        """Change a project's quota. False: no such project."""
        ...

    def project(self, name: str) -> Project | None:
        """Find a project."""
        ...

    def projects(self) -> Sequence[Project]:
        """List all projects, by name."""
        ...

    def add_key(self, key: Key, *, sealed: bytes | None = None) -> None:
        """Record a key; `sealed` is its encrypted text, of one that is made for a job."""
        ...

    def job_key(self, job: str) -> tuple[Key, bytes] | None:
        """The key that was made for a job, and its encrypted text; None: there is none."""
        ...

    def key(self, ident: str) -> Key | None:
        """Find a key by id."""
        ...

    def keys(self) -> Sequence[Key]:
        """List all keys, newest first."""
        ...

    def revoke_key(self, ident: str, *, at: float) -> bool:
        """Revoke a key. False: no such key, or revoked before."""
        ...

    def expire_key(self, ident: str, *, at: float) -> bool:
        """Let a valid key expire, or earlier than it would. False: no such key, or revoked."""
        ...

    def drop_key(self, ident: str) -> None:
        """Forget a key that was made for a job: its calls are those of another one."""
        ...

    def hand_over_keys(self, parent: str, other: str) -> None:
        """Make another key the parent of the keys of one."""
        ...

    def put_secret(self, project: str, name: str, sealed: bytes) -> None:
        """Store an encrypted secret."""
        ...

    def secrets(self, project: str) -> Mapping[str, bytes]:
        """Return a project's encrypted secrets by name."""
        ...

    def drop_secret(self, project: str, name: str) -> bool:
        """Delete a secret. False: no such secret."""
        ...
