"""Ports: the protocols that a plug-in implements. Calls may block unless said otherwise."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

from karez.core.artifacts import FileEntry
from karez.core.checkpoint_folder import FolderListing
from karez.core.devices import Device
from karez.core.engines import Capabilities
from karez.core.fault_injection import FaultInjection
from karez.core.nodes import Node, NodeId
from karez.core.processes import Cursors, LogChunk, Poll, ProcessInfo, ProcessSample, ProcessSpec
from karez.core.tunnels import Tunnels
from karez.core.workloads import WorkloadId


class Clock(Protocol):
    """Source of the current time."""

    def now(self) -> float:
        """UTC epoch seconds."""
        ...

    def pause(self, seconds: float) -> None:
        """Return after this many seconds."""
        ...


class Devices(Protocol):
    """Discovery of one kind of device on this host."""

    def discover(self) -> Sequence[Device]:
        """List the devices of this host, by index. Empty, not an error, where there are none."""
        ...


class NodeLost(Exception):
    """A node does not answer. Not for users: control loops turn it into decisions."""


class NodeEnded(NodeLost):
    """A node's agent has certainly ended: its connection closed, and a new one was refused."""


PollAnswer = Poll | NodeLost
"""What a poll of a node yields; NodeEnded: its agent has certainly ended."""


class Fabric(FaultInjection, Tunnels, Protocol):
    """The nodes and the processes on them. Every call may raise NodeLost."""

    def nodes(self) -> Sequence[Node]:
        """List the nodes that are reachable now; their agents are started if need be."""
        ...

    def start(self, node: NodeId, spec: ProcessSpec) -> None:
        """Start a process; returns before it runs. A failure arrives as an `exit` event."""
        ...

    def send(self, node: NodeId, key: str, message: Mapping[str, Any]) -> None:
        """Send a message to a process; dropped if the process has ended."""
        ...

    def kill(self, node: NodeId, key: str, *, grace_s: float = 0.0) -> None:
        """End a process and its children. Repeatable."""
        ...

    def purge(self, node: NodeId, workload: WorkloadId) -> None:
        """Kill a workload's remaining processes and drop its memory, folders and records."""
        ...

    def processes(self, node: NodeId) -> Sequence[ProcessInfo]:
        """List all processes the node has a record of, ended ones included until their purge."""
        ...

    def poll(self, cursors: Mapping[NodeId, Cursors], wait_s: float) -> Mapping[NodeId, PollAnswer]:
        """Ask several nodes at once for events; return as soon as one answers, or after `wait_s`.

        A node that does not answer in time is asked on, beyond this call. Not for two threads.

        Args:
            cursors: Node -> workloads of which events are wanted, each with the number of the last
                event that is known.
            wait_s: Seconds to wait.

        Returns:
            The nodes that have answered, or are lost, since the call before. An answer may repeat
            events that are known.
        """
        ...

    def sample(
        self, node: NodeId, workload: WorkloadId, *, stacks: bool
    ) -> Sequence[ProcessSample]:
        """Sample a workload's living processes; with `stacks` each writes its stacks to its log."""
        ...

    def read_log(self, node: NodeId, key: str, offset: int, limit: int) -> LogChunk:
        """Return up to `limit` bytes of a process's output from `offset` on."""
        ...

    def collect(self, node: NodeId, key: str) -> Sequence[tuple[str, FileEntry]]:
        """Put a process's outputs into the blob store: (output name, file) pairs."""
        ...

    def save(self, node: NodeId, workload: WorkloadId, path: str) -> FileEntry:
        """Move a checkpoint file that a rank of a workload has written into the blob store."""
        ...

    def store_checkpoints(
        self, node: NodeId, workload: WorkloadId, start_id: str, quiet_s: float
    ) -> FolderListing | None:
        """Put the files of a workload's KAREZ_CHECKPOINT_DIR into the blob store.

        Returns:
            None where the node has no such folder of this start of the job. A listing that is not
            settled where a file was written in the last `quiet_s` seconds.
        """
        ...

    def reserve_port(self, node: NodeId, workload: WorkloadId, start_id: str) -> int:
        """Reserve a free port of a node for a workload, until it is purged or starts again.

        The same start is given the same port. Raises OSError where no port is free.
        """
        ...

    def replica_server(self, node: NodeId) -> str:
        """Return the address (host:port) of the node's replica server."""
        ...

    def stop_nodes(self) -> None:
        """End every process on every node, and the nodes' agents: the cloud goes down."""
        ...

    def close(self) -> None:
        """Close the connections to the nodes; processes on them go on."""
        ...


class BlobWriter(Protocol):
    """One blob that is being stored, piece by piece."""

    size_bytes: int
    """Bytes written so far."""

    def write(self, chunk: bytes) -> None:
        """Write a piece. Raises StorageFull; then nothing is kept."""
        ...

    def finish(self) -> FileEntry:
        """Store the blob. Raises BrokenArtifact, StorageFull; then nothing is kept."""
        ...

    def abort(self) -> None:
        """Keep nothing. Repeatable, and harmless after `finish`."""
        ...


class Blobs(Protocol):
    """Content-addressed storage of bytes."""

    def put(self, source: BinaryIO, *, expect: str = "") -> FileEntry:
        """Store a stream under its SHA-256; the returned `path` is always `blob`.

        Raises:
            BrokenArtifact: The content has another digest than `expect`.
            StorageFull: No room; nothing is kept.
        """
        ...

    def open(self, digest: str) -> BinaryIO:
        """Open a blob for reading. Raises NotFound."""
        ...

    def has(self, digest: str) -> bool:
        """Whether a blob is stored."""
        ...

    def set_aside(self, digest: str) -> None:
        """Keep a damaged blob under another name, so that it is not taken for the blob."""
        ...

    def digests(self) -> Iterable[str]:
        """Return the digests of all stored blobs."""
        ...

    def local(self, digest: str) -> Path | None:
        """Path of a blob on this machine, if it has one."""
        ...


class BlobStore(Blobs, Protocol):
    """Storage of bytes that takes them piece by piece too."""

    def writer(self, *, expect: str = "") -> BlobWriter:
        """Begin to store a blob whose SHA-256 should be `expect`, where that is given."""
        ...

    def sweep(self, *, before: float) -> int:
        """Remove what writers left and last touched before this time (UTC epoch seconds).

        Returns how many files there were.
        """
        ...


class LogSink(Protocol):
    """Storage of the output of processes."""

    def size(self, job: str, name: str) -> int:
        """Bytes of a log that are stored."""
        ...

    def append(self, job: str, name: str, chunk: LogChunk) -> None:
        """Write a chunk at its offset, which is not before the end of the log."""
        ...


class Engine(Protocol):
    """A model server program: how to start it and what it can do.

    Its process reads KAREZ_ENGINE, and prints nothing secret.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    ready_path: ClassVar[str]
    """HTTP path that answers 200 once the engine serves."""

    def command(self) -> tuple[str, ...]:
        """Command of the program."""
        ...
