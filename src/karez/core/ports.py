"""The edges of the cloud: what a plug-in must do. Calls may block unless said otherwise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

from karez.core.artifacts import Artifact, ArtifactKind, FileEntry
from karez.core.identity import Key, Project
from karez.core.receipts import Receipt
from karez.core.resources import Device, Grant, Node, NodeId, NodeState
from karez.core.usage import AuditRow, Call, MetricRow, UsageRow
from karez.core.workloads import Allocation, Job, Service, State, Status, WorkloadId


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> float:
        """UTC epoch seconds."""
        ...


class Devices(Protocol):
    """How one kind of device is found on this host."""

    def discover(self) -> Sequence[Device]:
        """The devices of this host, by index. Empty, not an error, where there are none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """An artifact a process finds in a folder."""

    artifact: str
    folder: str
    """Name below the process's `inputs/`."""
    files: tuple[FileEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """A process to start on a node. `key` names it; starting the same key twice is harmless."""

    key: str
    workload: WorkloadId
    rank: int
    epoch: int
    command: tuple[str, ...]
    """`("module:function",)` runs in a warm fork; anything else is executed."""
    warm: bool = False
    grant: Grant | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[Staged, ...] = ()
    code: tuple[FileEntry, ...] = ()
    restore: Mapping[str, str] = field(default_factory=dict)
    """File name -> blob digest, put into the folder named by KAREZ_RESTORE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessInfo:
    """A process as its node sees it."""

    key: str
    workload: WorkloadId
    rank: int
    epoch: int
    pid: int
    alive: bool
    exit_code: int | None = None
    """Negative: ended by that signal."""
    error: str = ""
    said: Mapping[str, Any] = field(default_factory=dict)
    """The newest message of each type it sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened on a node."""

    seq: int
    at: float
    key: str
    type: str
    """`exit`, or the type of a message that the process sent."""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """Answer to a poll of a node's events."""

    events: tuple[Event, ...]
    seq: int
    boot: str
    """Changes when the node's agent started anew and forgot everything."""


class NodeLost(Exception):
    """A node does not answer. Not for users: loops turn it into decisions."""


class Fabric(Protocol):
    """The nodes and the processes on them. Every call may raise NodeLost."""

    def nodes(self) -> Sequence[Node]:
        """The nodes that are there right now, their agents started if need be."""
        ...

    def start(self, node: NodeId, spec: ProcessSpec) -> None:
        """Start a process; returns before it runs. Trouble comes as an `exit` event."""
        ...

    def tell(self, node: NodeId, key: str, message: Mapping[str, Any]) -> None:
        """Send a message to a process; dropped if it is gone."""
        ...

    def kill(self, node: NodeId, key: str, *, grace_s: float = 0.0) -> None:
        """End a process and its children. Repeatable."""
        ...

    def forget(self, node: NodeId, workload: WorkloadId) -> None:
        """Kill what is left of a workload and drop its memory, folders and records."""
        ...

    def processes(self, node: NodeId) -> Sequence[ProcessInfo]:
        """All processes the node knows of, ended ones included until they are forgotten."""
        ...

    def poll(self, node: NodeId, workload: WorkloadId, after: int, wait_s: float) -> Poll:
        """Events of a workload after `after`, waiting up to `wait_s` for one."""
        ...

    def read_log(self, node: NodeId, key: str, offset: int, limit: int) -> bytes:
        """A piece of a process's output."""
        ...

    def collect(self, node: NodeId, key: str) -> Sequence[tuple[str, FileEntry]]:
        """Put a process's outputs into the blob store: (output name, file) pairs."""
        ...

    def save(self, node: NodeId, path: str) -> FileEntry:
        """Put one file of a node into the blob store."""
        ...

    def keeper(self, node: NodeId) -> str:
        """host:port of the node's keeper."""
        ...

    def close(self) -> None:
        """Let go of the nodes; what runs on them goes on."""
        ...


class Blobs(Protocol):
    """Content-addressed bytes."""

    def put(self, source: BinaryIO, *, expect: str = "") -> FileEntry:
        """Store a stream under its SHA-256; `path` of the answer is empty-safe `blob`.

        Raises:
            BrokenArtifact: The content is not what `expect` says.
            StorageFull: No room; nothing is kept.
        """
        ...

    def open(self, digest: str) -> BinaryIO:
        """Read one. Raises NotFound."""
        ...

    def has(self, digest: str) -> bool:
        """Whether it is there."""
        ...

    def local(self, digest: str) -> Path | None:
        """Where it lies on this machine, if it does."""
        ...


class LogSink(Protocol):
    """Where output of processes is kept."""

    def size(self, job: str, name: str) -> int:
        """Bytes kept so far."""
        ...

    def append(self, job: str, name: str, data: bytes) -> None:
        """Keep some more."""
        ...


class Engine(Protocol):
    """A model server program: how to start it and what it can do."""

    name: ClassVar[str]
    formats: ClassVar[tuple[str, ...]]
    """Artifact formats it loads."""
    ready_path: ClassVar[str]
    """HTTP path that answers 200 once it serves."""

    def command(self) -> tuple[str, ...]:
        """The program; it reads KAREZ_ENGINE_* and prints nothing secret."""
        ...

    def env(self, *, model_file: str, alias: str, tokens: int, parallel: int) -> Mapping[str, str]:
        """The environment that configures it."""
        ...


class Store(Protocol):
    """The truth. Each method is one short transaction."""

    # workloads
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

    def queued(self) -> Sequence[tuple[WorkloadId, str, str]]:
        """(id, job or service, why it waits) of all that wait, oldest first."""
        ...

    def explain(self, reasons: Mapping[WorkloadId, str]) -> None:
        """Record why workloads wait."""
        ...

    # leases
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

    # allocations
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

    # pool
    def see_nodes(self, nodes: Sequence[Node], *, now: float) -> None:
        """Record nodes as seen now; a cordon stays."""
        ...

    def set_node(self, node: NodeId, state: NodeState) -> bool:
        """Cordon, uncordon or mark lost. False: no such node."""
        ...

    def nodes(self) -> Sequence[Node]:
        """All nodes ever seen."""
        ...

    # what happened
    def add_receipt(self, receipt: Receipt) -> None:
        """Record a recovery."""
        ...

    def receipts(self, job: str) -> Sequence[Receipt]:
        """Oldest first."""
        ...

    def add_metrics(self, job: str, rows: Sequence[MetricRow]) -> None:
        """Record steps; a step done again replaces the older record of that rank."""
        ...

    def metrics(self, job: str, *, after: int = -1) -> Sequence[MetricRow]:
        """Steps after `after`, in order of step and rank."""
        ...

    def add_checkpoint(self, job: str, step: int, rank: int, digest: str) -> None:
        """Record one rank's part of a stored checkpoint."""
        ...

    def newest_checkpoint(self, job: str, world: int) -> Mapping[int, tuple[int, str]]:
        """Rank -> (step, digest) of the newest step that all `world` ranks stored."""
        ...

    # artifacts
    def add_artifact(self, artifact: Artifact) -> Artifact:
        """Register; the same content under the same name is registered once."""
        ...

    def artifact(self, ident: str) -> Artifact | None:
        """By id, else the newest of that name."""
        ...

    def artifacts(
        self, *, projects: Sequence[str] | None, kinds: Sequence[ArtifactKind] = ()
    ) -> Sequence[Artifact]:
        """Newest first."""
        ...

    def remove_artifact(self, ident: str) -> bool:
        """Forget one; its blobs stay for others."""
        ...

    # people
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

    # books
    def add_calls(self, calls: Sequence[Call]) -> None:
        """Record gateway calls; one recorded before is left as it is."""
        ...

    def usage(self, *, projects: Sequence[str] | None, now: float) -> Sequence[UsageRow]:
        """Tokens per service and device-seconds per workload."""
        ...

    def add_audit(self, row: AuditRow) -> None:
        """Append to the audit log; `id` is given by the store."""
        ...

    def audit(self, *, limit: int = 100) -> Sequence[AuditRow]:
        """Newest first."""
        ...

    def ping(self) -> None:
        """Raises if the store cannot be reached."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
