"""Protocol of the store of resize requests."""

from collections.abc import Sequence
from typing import Protocol

from karez.core.grants import Grant
from karez.core.workloads import WorkloadId


class ResizeRequestStore(Protocol):
    """Resize requests: grants that running gangs were asked to go on with."""

    def request(self, ident: WorkloadId, grants: Sequence[Grant]) -> None:
        """Ask a gang to go on with these grants; replaces an earlier request."""
        ...

    def requested(self, ident: WorkloadId) -> Sequence[Grant] | None:
        """Return the grants of a gang's resize request, if it has one."""
        ...

    def take(self, ident: WorkloadId) -> Sequence[Grant] | None:
        """The grants that a gang is asked to take; nobody is told of them again."""
        ...

    def ids(self) -> frozenset[WorkloadId]:
        """Return the gangs that have a resize request."""
        ...

    def drop(self, ident: WorkloadId) -> None:
        """Delete a gang's resize request: it was carried out, or cannot be."""
        ...
