"""Stand-ins that behave: a clock that moves when told, a fabric over stewards in this process."""

from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from karez.core.artifacts import FileEntry
from karez.core.checkpoint_folder import FolderListing
from karez.core.devices import Device, DeviceKind
from karez.core.fault_injection import FaultKind
from karez.core.nodes import Node, NodeId
from karez.core.ports import NodeLost, PollAnswer
from karez.core.processes import Cursors, LogChunk, Poll, ProcessInfo, ProcessSample, ProcessSpec
from karez.core.tunnels import Terminal, TunnelPiece, TunnelSpec
from karez.core.workloads import WorkloadId
from karez.drivers.poll_set import HOLD_S, PollSet
from karez.drivers.steward.config import StewardConfig
from karez.drivers.steward.staging import BlobSource
from karez.drivers.steward.steward import Steward


@dataclass
class FakeClock:
    at: float = 1000.0

    def now(self) -> float:
        return self.at

    def pause(self, seconds: float) -> None:
        self.at += seconds


@dataclass
class MemoryLogs:
    files: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def size(self, job: str, name: str) -> int:
        return len(self.files.get((job, name), b""))

    def append(self, job: str, name: str, chunk: LogChunk) -> None:
        self.files[job, name] = self.files.get((job, name), b"") + chunk.data

    def text(self) -> str:
        return b"".join(self.files.values()).decode(errors="replace")


ROOT = Path(__file__).parents[1]
"""The repository."""


class DirectFabric:
    """A Fabric over real stewards in this process: no Ray, one steward per pretended node."""

    def __init__(
        self,
        folder: Path,
        nodes: Sequence[str],
        *,
        preload: str = "",
        npus: int = 0,
    ) -> None:
        self.stewards: dict[NodeId, Steward] = {}
        self._executor = ThreadPoolExecutor(64)
        self._polls: PollSet[Future[Poll]] = PollSet(
            begin=lambda node, cursors: self._executor.submit(
                self.stewards[node].poll, cursors, HOLD_S
            ),
            ready=lambda replies, wait_s: list(
                wait(replies, wait_s, return_when=FIRST_COMPLETED).done
            ),
            limit_s=60.0,
        )
        self._folder, self._preload, self._npus = folder, preload, npus
        self.shared = folder / "shared"
        """A folder that the jobs of all nodes may write into."""
        self.shared.mkdir(parents=True, exist_ok=True)
        self.shared.chmod(0o777)
        for name in nodes:
            self.add(name)

    def add(self, name: str) -> None:
        """A node joins."""
        home = self._folder / name
        home.mkdir(parents=True)
        config = StewardConfig(
            node=name,
            address="127.0.0.1",
            home=str(home),
            token="t",
            blobs=BlobSource(folder=str(self._folder / "blobs")),
            preload=self._preload,
            npus=self._npus,
            bind_paths=f"{ROOT / 'tests'},{ROOT / 'examples'},{self.shared}:rw",
        )
        self.stewards[NodeId(name)] = Steward(config)

    def lose(self, name: str) -> None:
        """The node's power is cut: its processes and its memory are gone."""
        self.stewards.pop(NodeId(name)).stop()

    def stop_nodes(self) -> None:
        self.close()

    def close(self) -> None:
        for steward in self.stewards.values():
            steward.stop()

    def nodes(self) -> Sequence[Node]:
        return [steward.describe() for steward in self.stewards.values()]

    def _of(self, node: NodeId) -> Steward:
        if node not in self.stewards:
            raise NodeLost(node)
        return self.stewards[node]

    def start(self, node: NodeId, spec: ProcessSpec) -> None:
        self._of(node).start(spec)

    def send(self, node: NodeId, key: str, message: Mapping[str, object]) -> None:
        self._of(node).send(key, message)

    def kill(self, node: NodeId, key: str, *, grace_s: float = 0.0) -> None:
        self._of(node).kill(key, grace_s)

    def purge(self, node: NodeId, workload: WorkloadId) -> None:
        self._of(node).purge(workload)

    def processes(self, node: NodeId) -> Sequence[ProcessInfo]:
        return self._of(node).processes()

    def poll(self, cursors: Mapping[NodeId, Cursors], wait_s: float) -> Mapping[NodeId, PollAnswer]:
        lost = {node: NodeLost(node) for node in cursors if node not in self.stewards}
        for node in lost:
            self._polls.drop(node)
        self._polls.cover({node: of for node, of in cursors.items() if node not in lost}, 0.0)
        answered = self._polls.take_answered(0.0 if lost else wait_s)
        return {
            **{node: reply.result() for node, reply in answered},
            **{node: NodeLost(node) for node in cursors if node not in self.stewards},
        }

    def sample(
        self, node: NodeId, workload: WorkloadId, *, stacks: bool
    ) -> Sequence[ProcessSample]:
        return self._of(node).sample(workload, stacks)

    def inject_fault(self, node: NodeId, workload: WorkloadId, key: str, what: FaultKind) -> None:
        self._of(node).inject_fault(workload, key, what)

    def read_log(self, node: NodeId, key: str, offset: int, limit: int) -> LogChunk:
        return self._of(node).read_log(key, offset, limit)

    def collect(self, node: NodeId, key: str) -> Sequence[tuple[str, FileEntry]]:
        return self._of(node).collect(key)

    def save(self, node: NodeId, workload: WorkloadId, path: str) -> FileEntry:
        return self._of(node).save(workload, path)

    def store_checkpoints(
        self, node: NodeId, workload: WorkloadId, start_id: str, quiet_s: float
    ) -> FolderListing | None:
        return self._of(node).store_checkpoints(workload, start_id, quiet_s)

    def reserve_port(self, node: NodeId, workload: WorkloadId, start_id: str) -> int:
        return self._of(node).reserve_port(workload, start_id)

    def replica_server(self, node: NodeId) -> str:
        return self._of(node).replica_server()

    def open_tunnel(self, node: NodeId, workload: WorkloadId, ident: str, spec: TunnelSpec) -> None:
        self._of(node).open_tunnel(workload, ident, spec)

    def write_tunnel(
        self, node: NodeId, workload: WorkloadId, ident: str, offset: int, data: bytes, end: bool
    ) -> int:
        return self._of(node).write_tunnel(workload, ident, offset, data, end)

    def read_tunnel(
        self, node: NodeId, workload: WorkloadId, ident: str, offset: int
    ) -> TunnelPiece:
        return self._of(node).read_tunnel(workload, ident, offset)

    def resize_tunnel(
        self, node: NodeId, workload: WorkloadId, ident: str, terminal: Terminal
    ) -> None:
        self._of(node).resize_tunnel(workload, ident, terminal)

    def close_tunnel(self, node: NodeId, workload: WorkloadId, ident: str) -> None:
        self._of(node).close_tunnel(workload, ident)


class NoTunnels:
    """For fabrics whose processes are pretended: there is nobody to open a shell beside."""

    def open_tunnel(self, node: NodeId, workload: WorkloadId, ident: str, spec: TunnelSpec) -> None:
        raise NotImplementedError

    def write_tunnel(
        self, node: NodeId, workload: WorkloadId, ident: str, offset: int, data: bytes, end: bool
    ) -> int:
        raise NotImplementedError

    def read_tunnel(
        self, node: NodeId, workload: WorkloadId, ident: str, offset: int
    ) -> TunnelPiece:
        raise NotImplementedError

    def resize_tunnel(
        self, node: NodeId, workload: WorkloadId, ident: str, terminal: Terminal
    ) -> None:
        raise NotImplementedError

    def close_tunnel(self, node: NodeId, workload: WorkloadId, ident: str) -> None:
        raise NotImplementedError


def cpu_node(name: str, cpus: int = 2, **more: object) -> Node:
    devices = tuple(Device(kind=DeviceKind.CPU, index=index) for index in range(cpus))
    fields = {"memory_bytes": 8 << 30, **more}
    return Node(id=NodeId(name), address="127.0.0.1", devices=devices, **fields)  # type: ignore[arg-type]
