"""The edges of the cloud: what a plug-in must do. Calls may block unless said otherwise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

from karez.core.artifacts import FileEntry
from karez.core.resources import Device, Grant, Node, NodeId
from karez.core.workloads import WorkloadId


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
    grant: Grant | None = None
    """What it was started with."""
    last_messages: Mapping[str, Any] = field(default_factory=dict)
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
    agent_boot_id: str
    """Changes when the node's agent started anew and forgot everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSample:
    """A look at one process from outside: it need not answer."""

    key: str
    state: str
    """As the kernel has it: `running`, `sleeping`, `stopped`, `disk-sleep`, ..."""
    cpu_s: float
    """Processor time that it has used."""
    activity: str = ""
    """What it wrote on its board, in lower case; empty if it has none."""
    step: int = 0
    generation: int = 0
    activity_s: float = 0.0
    """How long it has been at that."""


class FaultKind(StrEnum):
    """What can be done to a job on purpose, to see that it goes on."""

    KILL = "kill"
    """SIGKILL to a rank."""
    STOP = "stop"
    """SIGSTOP to a rank: it freezes."""
    SLOW = "slow"
    """A rank gets half of its time for a while."""
    CORRUPT = "corrupt"
    """A number in a rank's weights changes its sign."""
    LINK = "link"
    """A rank's connections to the others break."""
    NODE = "node"
    """A node loses the job's ranks and memory at once, as if its power had failed."""
    REPLICA_SERVER = "replica-server"
    """The process that keeps peers' states is killed."""
    CONTROLLER = "controller"
    """Who looks after the job forgets it."""
    CONTROL = "control"
    """SIGKILL to the control process."""

    @classmethod
    def _missing_(cls, value: object) -> "FaultKind | None":
        old = {"keeper": cls.REPLICA_SERVER, "foreman": cls.CONTROLLER}  # names of karez 0.1
        return old.get(value) if isinstance(value, str) else None


class NodeLost(Exception):
    """A node does not answer. Not for users: loops turn it into decisions."""


class NodeEnded(NodeLost):
    """Its agent has ended: the connection closed, and a new one was refused. No doubt is left."""


class Fabric(Protocol):
    """The nodes and the processes on them. Every call may raise NodeLost."""

    def nodes(self) -> Sequence[Node]:
        """The nodes that are there right now, their agents started if need be."""
        ...

    def start(self, node: NodeId, spec: ProcessSpec) -> None:
        """Start a process; returns before it runs. Trouble comes as an `exit` event."""
        ...

    def send(self, node: NodeId, key: str, message: Mapping[str, Any]) -> None:
        """Send a message to a process; dropped if it is gone."""
        ...

    def kill(self, node: NodeId, key: str, *, grace_s: float = 0.0) -> None:
        """End a process and its children. Repeatable."""
        ...

    def purge(self, node: NodeId, workload: WorkloadId) -> None:
        """Kill what is left of a workload and drop its memory, folders and records."""
        ...

    def processes(self, node: NodeId) -> Sequence[ProcessInfo]:
        """All processes the node knows of, ended ones included until they are forgotten."""
        ...

    def poll(self, node: NodeId, workload: WorkloadId, after: int, wait_s: float) -> Poll:
        """Events of a workload after `after`, waiting up to `wait_s` for one."""
        ...

    def sample(
        self, node: NodeId, workload: WorkloadId, *, stacks: bool
    ) -> Sequence[ProcessSample]:
        """What the living processes of a workload are at; `stacks` go to their output."""
        ...

    def inject_fault(self, node: NodeId, workload: WorkloadId, key: str, what: FaultKind) -> None:
        """Break something of one workload on purpose."""
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

    def replica_server(self, node: NodeId) -> str:
        """host:port of the node's keeper."""
        ...

    def stop_nodes(self) -> None:
        """End every process on every node, and the nodes' agents: the cloud goes down."""
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
