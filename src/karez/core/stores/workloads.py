"""Protocol of the store of workloads."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from karez.core.grants import Grant
from karez.core.jobs import Job
from karez.core.services import Replica, Service
from karez.core.traces import HeldDevices
from karez.core.workloads import Allocation, State, Status, WorkloadId


class WorkloadStore(Protocol):
    """Jobs and services, their leases and their allocations."""

    def add_job(self, job: Job) -> None:
        """Queue a job, or hold it until others have ended."""
        ...

    def add_array(self, jobs: Sequence[Job]) -> None:
        """Add all jobs of an array, or none."""
        ...

    def add_service(self, service: Service) -> None:
        """Queue a service. Raises AlreadyExists if the project has a live one of that name."""
        ...

    def job(self, ident: str) -> Job | None:
        """Find a job, or an array as one job, by id; else the newest job of that name."""
        ...

    def service(self, ident: str) -> Service | None:
        """Find a service by id, else the newest of that name."""
        ...

    def by_id(self, ident: str) -> Job | Service | Replica | None:
        """A workload by its id alone; of an array, one of its jobs."""
        ...

    def find(self, ident: str) -> Job | Service | Replica | None:
        """A workload or array by id, else the newest job or service of that name."""
        ...

    def jobs(
        self,
        *,
        projects: Sequence[str] | None,
        states: Sequence[State] = (),
        name: str = "",
        array: str = "",
        whole_arrays: bool = False,
        limit: int = 100,
    ) -> Sequence[Job]:
        """List jobs, newest first. `projects` None means all, an empty `name` or `array` too.

        With `whole_arrays`, each array of which a job is in these states is one job; else its jobs
        are listed.
        """
        ...

    def ended_jobs(self, *, since: float, limit: int) -> tuple[Sequence[Job], float | None]:
        """List jobs, and arrays as one, of which something ended since an instant; some go on.

        Returns:
            The jobs of up to `limit` endings, the oldest first, and the instant at which to go on
            reading; None: that was all.
        """
        ...

    def services(
        self, *, projects: Sequence[str] | None, states: Sequence[State] = (), name: str = ""
    ) -> Sequence[Service]:
        """List services, newest first, as `jobs`."""
        ...

    def count_waiting(self, project: str) -> int:
        """Count the jobs of a project that wait, those of arrays too."""
        ...

    def count_states(self) -> Mapping[tuple[str, State], int]:
        """Count the workloads of each kind (job, service) in each state."""
        ...

    def update(
        self,
        ident: WorkloadId,
        *,
        token: str | None = None,
        state: State | None = None,
        status: Status | None = None,
        at: float | None = None,
    ) -> bool:
        """Change a workload. With a token, only while that lease holds. False: not done.

        An ended workload never changes again.
        """
        ...

    def fail(self, ident: WorkloadId, why: str, *, at: float) -> bool:
        """End a waiting workload that cannot be started. False: it does not wait."""
        ...

    def request_stop(self, ident: WorkloadId, *, at: float) -> State | None:
        """Request an end: a queued workload ends at once, an active one becomes STOPPING.

        Of an array, all jobs are meant.

        Returns its state from now on; None if there is no such workload.
        """
        ...

    def request_preemption(self, ident: WorkloadId) -> bool:
        """Ask an active workload to store its state and queue again. False: it is not active."""
        ...

    def queued(self) -> Sequence[tuple[WorkloadId, str, str]]:
        """List queued workloads, oldest first: (id, job or replica, why it waits)."""
        ...

    def explain(self, reasons: Mapping[WorkloadId, str]) -> None:
        """Record why workloads wait."""
        ...

    def held_jobs(self) -> Sequence[Job]:
        """List the held jobs, oldest first; of each array, the first that is held."""
        ...

    def settle_array(self, array: str, state: State, reason: str, *, now: float) -> int:
        """Queue as many held jobs of an array as its limit allows, or end all for a reason.

        Returns how many were queued or ended.
        """
        ...

    def settle_held(self, job: Job, state: State, reason: str, *, now: float) -> bool:
        """Queue a held job with the spec that it has here, or end it for a reason.

        False: it is not held any more.
        """
        ...

    def longest_waiting(self, *, limit: int) -> Sequence[Job]:
        """List waiting jobs, and arrays with waiting jobs as one, oldest first."""
        ...

    def first_queued(self, array: str) -> Job | None:
        """Find the queued job of an array that was submitted first."""
        ...

    def users_of(self, artifact: str) -> Sequence[Job | Service | Replica]:
        """List live workloads whose specification mentions an artifact's id."""
        ...

    def drop_leases(self, owner: str) -> None:
        """Free all leases of an owner that is known to be dead."""
        ...

    def claim(
        self, states: Sequence[State], *, owner: str, now: float, lease_s: float
    ) -> Sequence[tuple[WorkloadId, str]]:
        """Lease each job and replica in these states whose lease is free: (id, token) pairs."""
        ...

    def renew(self, owner: str, *, now: float, lease_s: float) -> None:
        """Prolong all leases of an owner."""
        ...

    def leased(self, owner: str) -> Mapping[WorkloadId, tuple[str, State]]:
        """Workloads that an owner has leased: the token of the lease, and the workload's state."""
        ...

    def release(self, ident: WorkloadId, token: str) -> None:
        """Release a lease."""
        ...

    def place(self, ident: WorkloadId, grants: Sequence[Grant], *, now: float) -> int | None:
        """QUEUED -> PLACED with these grants; the new epoch, or None if it was not queued."""
        ...

    def regrant(
        self, ident: WorkloadId, token: str, grants: Sequence[Grant], *, now: float
    ) -> int | None:
        """Replace the grants of an active workload under its lease; the new epoch or None."""
        ...

    def requeue(self, ident: WorkloadId, token: str, status: Status, *, now: float) -> bool:
        """Release a workload's grants and queue it again."""
        ...

    def end(
        self, ident: WorkloadId, token: str, state: State, status: Status, *, now: float
    ) -> bool:
        """Release a workload's grants and end it, once and for all."""
        ...

    def held(self, ident: WorkloadId) -> Sequence[HeldDevices]:
        """List all allocations that a workload has and had, oldest first."""
        ...

    def allocations(self) -> Mapping[WorkloadId, Allocation]:
        """Return the current allocation of each workload that holds grants."""
        ...
