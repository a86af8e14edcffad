"""The truth: what is kept, and what each way of keeping it must do.

Each method is one short transaction.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from karez.core.artifacts import Artifact, ArtifactKind
from karez.core.identity import Key, Project
from karez.core.receipts import Receipt
from karez.core.recovery import CheckpointPart, FaultReport, Transition
from karez.core.resources import Grant, MaintenanceWindow, Node, NodeId, NodeOverride, NodeState
from karez.core.usage import AuditRow, Call, MetricRow, UsageRow
from karez.core.workloads import Allocation, Job, Service, State, Status, WorkloadId


class WorkloadStore(Protocol):
    """Jobs and services, their leases and what they hold."""

    def add_job(self, job: Job) -> None:
        """Queue a job."""
        ...

    def add_service(self, service: Service) -> None:
        """Queue a service. Raises AlreadyExists if the project has a live one of that name."""
        ...

    def job(self, ident: str) -> Job | None:
        """By id, else the newest of that name."""
        ...

    def service(self, ident: str) -> Service | None:
        """By id, else the newest of that name."""
        ...

    def jobs(
        self, *, projects: Sequence[str] | None, states: Sequence[State] = (), limit: int = 100
    ) -> Sequence[Job]:
        """Newest first. `projects` None means all."""
        ...

    def services(
        self, *, projects: Sequence[str] | None, states: Sequence[State] = ()
    ) -> Sequence[Service]:
        """Newest first."""
        ...

    def count_states(self) -> Mapping[tuple[str, State], int]:
        """How many workloads of each kind (job, service) are in each state."""
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

    def request_stop(self, ident: WorkloadId, *, at: float) -> State | None:
        """Ask for an end: a queued one ends at once, an active one becomes STOPPING."""
        ...

    def request_preemption(self, ident: WorkloadId) -> bool:
        """Ask an active workload to keep its state and wait again. False: it is not active."""
        ...

    def queued(self) -> Sequence[tuple[WorkloadId, str, str]]:
        """(id, job or service, why it waits) of all that wait, oldest first."""
        ...

    def explain(self, reasons: Mapping[WorkloadId, str]) -> None:
        """Record why workloads wait."""
        ...

    def drop_leases(self, owner: str) -> None:
        """Free all leases of an owner that is known to be dead."""
        ...

    def claim(
        self, states: Sequence[State], *, owner: str, now: float, lease_s: float
    ) -> Sequence[tuple[WorkloadId, str]]:
        """Take every workload in these states whose lease is free: (id, token) pairs."""
        ...

    def renew(self, owner: str, *, now: float, lease_s: float) -> None:
        """Prolong all leases of an owner."""
        ...

    def release(self, ident: WorkloadId, token: str) -> None:
        """Give a lease back."""
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
        """Give the grants back and wait again."""
        ...

    def end(
        self, ident: WorkloadId, token: str, state: State, status: Status, *, now: float
    ) -> bool:
        """Give the grants back and end, once and for all."""
        ...

    def allocations(self) -> Mapping[WorkloadId, Allocation]:
        """What is held right now."""
        ...


class NodeStore(Protocol):
    """The nodes ever seen."""

    def record_nodes(self, nodes: Sequence[Node], *, now: float) -> None:
        """Record nodes as seen now; a cordon stays."""
        ...

    def set_node(self, node: NodeId, state: NodeState) -> bool:
        """Cordon, uncordon or mark lost. False: no such node."""
        ...

    def set_windows(self, node: NodeId, windows: Sequence[MaintenanceWindow]) -> bool:
        """Plan a node's maintenance anew. False: no such node."""
        ...

    def set_override(self, node: NodeId, mark: NodeOverride) -> bool:
        """Keep what an operator says of a node. False: no such node."""
        ...

    def overrides(self) -> Mapping[NodeId, NodeOverride]:
        """What operators said."""
        ...

    def nodes(self) -> Sequence[Node]:
        """All nodes ever seen, with what operators said of them and planned for them."""
        ...


class ResizeRequestStore(Protocol):
    """Sizes that running gangs were asked to take."""

    def request(self, ident: WorkloadId, grants: Sequence[Grant]) -> None:
        """Ask a gang to go on with these grants; the newest word stands."""
        ...

    def requested(self, ident: WorkloadId) -> Sequence[Grant] | None:
        """What it was asked for, if anything."""
        ...

    def drop(self, ident: WorkloadId) -> None:
        """It was done, or cannot be."""
        ...


class HistoryStore(Protocol):
    """What happened to jobs: recoveries, steps, checkpoints."""

    def add_receipt(self, receipt: Receipt) -> None:
        """Record a recovery."""
        ...

    def receipts(self, job: str) -> Sequence[Receipt]:
        """Oldest first; of all jobs, if none is named."""
        ...

    def add_metrics(self, job: str, rows: Sequence[MetricRow]) -> None:
        """Record steps; a step done again replaces the older record of that rank."""
        ...

    def metrics(self, job: str, *, after: int = -1) -> Sequence[MetricRow]:
        """Steps after `after`, in order of step and rank."""
        ...

    def add_checkpoint(self, job: str, part: CheckpointPart) -> None:
        """Record one rank's part of a stored checkpoint."""
        ...

    def newest_checkpoint(
        self, job: str, seats: Sequence[int]
    ) -> Mapping[int, Sequence[CheckpointPart]]:
        """Seat -> the parts it starts from, of the newest step that these seats can start from.

        A step counts once all ranks that were there have stored it. A seat that stored none of it
        starts from what the ranks have in common, where a part holds that; where every part is a
        shard, other seats than those that stored them get all of them.
        """
        ...

    def add_transition(self, job: str, transition: Transition) -> None:
        """Append to the log of a job's recoveries."""
        ...

    def transitions(self, job: str, *, newest: int = 1000) -> Sequence[Transition]:
        """The newest of the log, oldest first."""
        ...

    def add_incident(self, report: FaultReport) -> None:
        """Keep what was reported of a node."""
        ...

    def incidents(self, *, since: float, node: str = "") -> Sequence[FaultReport]:
        """What was reported after an instant, of one node or of all, oldest first."""
        ...


class ArtifactStore(Protocol):
    """The registered artifacts."""

    def add(self, artifact: Artifact) -> Artifact:
        """Register; the same content under the same name is registered once."""
        ...

    def find(self, ident: str) -> Artifact | None:
        """By id, else the newest of that name."""
        ...

    def list(
        self, *, projects: Sequence[str] | None, kinds: Sequence[ArtifactKind] = ()
    ) -> Sequence[Artifact]:
        """Newest first."""
        ...

    def remove(self, ident: str) -> bool:
        """Forget one; its blobs stay for others."""
        ...


class AccessStore(Protocol):
    """Projects, keys and secrets."""

    def add_project(self, project: Project) -> None:
        """Make one. Raises AlreadyExists."""
        ...

    def set_quota(self, project: Project) -> bool:
        """Change one's quota. False: no such project."""
        ...

    def projects(self) -> Sequence[Project]:
        """All, by name."""
        ...

    def add_key(self, key: Key) -> None:
        """Record a key."""
        ...

    def key(self, ident: str) -> Key | None:
        """By id."""
        ...

    def keys(self) -> Sequence[Key]:
        """All, newest first."""
        ...

    def revoke_key(self, ident: str, *, at: float) -> bool:
        """From now on the key is refused."""
        ...

    def put_secret(self, project: str, name: str, sealed: bytes) -> None:
        """Store an encrypted secret."""
        ...

    def secrets(self, project: str) -> Mapping[str, bytes]:
        """Encrypted secrets by name."""
        ...

    def drop_secret(self, project: str, name: str) -> bool:
        """Forget one."""
        ...


class UsageStore(Protocol):
    """Calls, usage and the audit log."""

    def add_calls(self, calls: Sequence[Call]) -> None:
        """Record gateway calls; one recorded before is left as it is."""
        ...

    def summary(self, *, projects: Sequence[str] | None, now: float) -> Sequence[UsageRow]:
        """Tokens per service and device-seconds per workload."""
        ...

    def held(self, since: float) -> Sequence[tuple[str, tuple[Grant, ...], float, float | None]]:
        """(project, grants, from, until) of all that was held after an instant."""
        ...

    def add_audit(self, row: AuditRow) -> None:
        """Append to the audit log; `id` is given by the store."""
        ...

    def audit(self, *, limit: int = 100) -> Sequence[AuditRow]:
        """Newest first."""
        ...


class Store(Protocol):
    """All of it."""

    @property
    def workloads(self) -> WorkloadStore:
        """Jobs, services, leases, allocations."""
        ...

    @property
    def pool(self) -> NodeStore:
        """The nodes."""
        ...

    @property
    def resize_requests(self) -> ResizeRequestStore:
        """Sizes that were asked for."""
        ...

    @property
    def history(self) -> HistoryStore:
        """What happened."""
        ...

    @property
    def artifacts(self) -> ArtifactStore:
        """Artifacts."""
        ...

    @property
    def access(self) -> AccessStore:
        """Projects, keys, secrets."""
        ...

    @property
    def usage(self) -> UsageStore:
        """Usage and audit."""
        ...

    def ping(self) -> None:
        """Raises if the store cannot be reached."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
