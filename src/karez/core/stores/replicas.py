"""Protocol of the store of replicas, and of what services become by them."""

from collections.abc import Sequence
from typing import Protocol

from karez.core.services import Replica, Service, ServiceSpec
from karez.core.workloads import State, Status, WorkloadId


class ReplicaStore(Protocol):
    """The replicas of services. Their leases and allocations are in the store of workloads."""

    def add(self, service: Service, count: int, *, now: float) -> Sequence[Replica]:
        """Queue replicas of a service with the numbers that come next; none if it has ended."""
        ...

    def live(
        self, *, service: str = "", projects: Sequence[str] | None = None, ended_since: float
    ) -> Sequence[Replica]:
        """List replicas that have not ended, or since an instant only, the oldest first.

        `service` is the id of one; an empty one means all, `projects` None too.
        """
        ...

    def last_started(self, service: WorkloadId, unlike: ServiceSpec) -> Replica | None:
        """The newest replica of a service that was ever ready and runs as something else."""
        ...

    def measured(self) -> Sequence[Replica]:
        """The newest replicas whose engines have told what memory they take."""
        ...

    def note_service(self, service: Service, state: State, status: Status, *, at: float) -> bool:
        """Write what a live service has become; one that is to stop only ends.

        Returns False if nothing was written: it has ended, or was changed since it was read.
        """
        ...

    def set_spec(
        self, service: Service, spec: ServiceSpec, status: Status, *, at: float | None
    ) -> bool:
        """Replace the specification of a live service; `at` if its replicas are to be replaced.

        Returns False if nothing was written: it stops, has ended, or was changed since it was read.
        """
        ...
