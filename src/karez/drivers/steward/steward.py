"""The node agent: starts processes, passes messages on, watches processes, and reports.

Reports of processes pass through to their controllers, orders to processes; only those that nobody
could read are refused. Ray hosts it as an actor (drivers.ray_stewards); nothing here imports Ray.
"""

import secrets
import shutil
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from karez.core.artifacts import FileEntry
from karez.core.checkpoint_folder import FolderListing
from karez.core.fault_injection import FaultKind
from karez.core.messages.orders import CutLinkOrder, FlipBitOrder
from karez.core.messages.wire import encode
from karez.core.nodes import Node, NodeId
from karez.core.processes import Cursors, LogChunk, Poll, ProcessInfo, ProcessSample, ProcessSpec
from karez.core.tunnels import Terminal, TunnelPiece, TunnelSpec
from karez.core.workloads import WorkloadId
from karez.drivers.linux import allow_many_files
from karez.drivers.probes import probe_node
from karez.drivers.steward.child_processes import ReplicaServerProcess
from karez.drivers.steward.config import StewardConfig
from karez.drivers.steward.heartbeat import HeartbeatServer, heartbeat_token
from karez.drivers.steward.master_ports import MasterPorts
from karez.drivers.steward.process_inspector import end_strays, inject_fault, sample_process
from karez.drivers.steward.process_launcher import ProcessLauncher
from karez.drivers.steward.process_orders import STORED
from karez.drivers.steward.process_table import ProcessTable
from karez.drivers.steward.rank_listener import RankListener
from karez.drivers.steward.staging import gather
from karez.drivers.steward.tunnels import NodeTunnels
from karez.drivers.steward.watchdogs import Fence, ResourceEnforcer
from karez.transport.log_file import read_log_file
from karez.transport.snapshot_file import snapshot_path


class Steward:
    """The agent of one node; its methods are those of Fabric and may be called from any thread."""

    def __init__(self, config: StewardConfig) -> None:
        """Start the fork servers, the replica server, the heartbeat and the watchdogs."""
        allow_many_files()  # jobs choose how many connections they open
        self.config = config
        self.boot = secrets.token_hex(4)
        self.home = Path(config.home)
        self.memory = Path("/dev/shm") / f"karez-{config.tag}"  # noqa: S108 - shared memory is meant
        self._boots: dict[WorkloadId, str] = {}
        """Boot ids of workloads that lost this node by an injected fault."""
        self._prepare_folders()
        self._table = ProcessTable()
        socket_path = str(self.memory / "steward.sock")
        self._listener = RankListener(self._table, socket_path)
        self._launcher = ProcessLauncher(config, self._table, self.memory, socket_path)
        self._checkpoints = self._launcher.orders.checkpoints
        self._tunnels = NodeTunnels(self._table, self._launcher, self.memory)
        self._replicas = ReplicaServerProcess(config.address, config.token, self.memory)
        self._heartbeat = HeartbeatServer(config.address, heartbeat_token(config.token))
        self._ports = MasterPorts()
        self._fence = Fence(self._table, self._launcher.kill, config.fence_s)
        self._enforcer = ResourceEnforcer(
            self._table, self._launcher.kill, self._launcher.kill_guest, config.log_bytes
        )

    def describe(self) -> Node:
        """Probe this node."""
        self._fence.touch()
        config = self.config
        name, home = NodeId(config.node), config.home
        node = probe_node(name, config.address, cpus=config.cpus, npus=config.npus, folder=home)
        labels = {**node.labels, **config.labels}
        sandboxes = self._launcher.sandboxes
        held = {**self._launcher.orders.groups.held(), "isolation": sandboxes.limit}
        return replace(
            node,
            labels=labels,
            problems=tuple(self._launcher.problems()),
            isolation=sandboxes.isolation,
            limits={**node.limits, **held},
        )

    def start(self, spec: ProcessSpec) -> None:
        """Start a process; processes of an older epoch of its workload are purged first."""
        self._fence.touch()
        existing = self._table.get(spec.key)
        if existing is not None:
            if existing.spec.epoch >= spec.epoch:
                return
            self._clear(spec.workload)
        folder = self.home / "work" / spec.workload / spec.key
        self._table.add(spec, folder)
        threading.Thread(
            target=self._launcher.launch, args=(spec, folder, self.replica_server()), daemon=True
        ).start()

    def send(self, key: str, message: Mapping[str, Any]) -> None:
        """Send a message to a process; one that has not connected yet gets it when it does."""
        self._fence.touch()
        process = self._table.get(key)
        if process is not None and process.info.alive:
            process.stream.send(message)

    def kill(self, key: str, grace_s: float = 0.0) -> None:
        """End a process and its children; with a grace period, SIGTERM comes first."""
        self._fence.touch()
        if grace_s > 0:
            self._launcher.kill(key, signal.SIGTERM)
            later = threading.Timer(grace_s, self.kill, args=(key,))
            later.daemon = True
            later.start()
        else:
            self._launcher.kill(key)

    def purge(self, workload: WorkloadId) -> None:
        """Kill a workload's processes and drop its memory, folders and records."""
        self._fence.touch()
        self._clear(workload)
        self._ports.release(workload)

    def _clear(self, workload: WorkloadId) -> None:
        keys = self._table.keys(workload)
        for key in keys:
            self.kill(key)
        self._tunnels.drop(workload)
        self._table.remove(workload, keys)
        self._launcher.sandboxes.end(workload)
        self._launcher.orders.drop(workload)
        self._replicas.drop(workload)

    def processes(self) -> Sequence[ProcessInfo]:
        """All processes, ended ones included until their workload is purged."""
        self._fence.touch()
        return [process.info for process in self._table.tracked()]

    def poll(self, cursors: Cursors, wait_s: float) -> Poll:
        """Events that are not known yet, waiting up to `wait_s` for one."""
        self._fence.touch()
        events = self._table.wait(cursors, wait_s)
        boot_ids = {workload: self._boots.get(workload, self.boot) for workload in cursors}
        return Poll(cursors=cursors, events=events, boot_ids=boot_ids)

    def sample(self, workload: WorkloadId, stacks: bool) -> Sequence[ProcessSample]:
        """Sample the living ranks of a workload; `stacks` go to their output."""
        self._fence.touch()
        return [
            sample_process(
                info, snapshot_path(self.memory, info.workload, info.rank), stacks=stacks
            )
            for info in self._table.ranks(workload)
        ]

    def inject_fault(self, workload: WorkloadId, key: str, what: FaultKind) -> None:
        """Break one workload on purpose; some faults are messages that a rank acts on itself."""
        self._fence.touch()
        if what == FaultKind.NODE:
            boot = {workload: secrets.token_hex(4)}
            # before the purge: control must not take it for ranks that died one by one
            self._table.wake(lambda: self._boots.update(boot))
            self.purge(workload)
        elif what == FaultKind.REPLICA_SERVER:
            self._replicas.kill()
        elif what in (FaultKind.CORRUPT, FaultKind.LINK):
            order = FlipBitOrder() if what == FaultKind.CORRUPT else CutLinkOrder()
            self.send(key, encode(order))
        else:
            inject_fault([info for info in self._table.ranks(workload) if info.key == key], what)

    def read_log(self, key: str, offset: int, limit: int) -> LogChunk:
        """A piece of a process's output."""
        process = self._table.get(key)
        if process is None:
            return LogChunk(start=offset, data=b"")
        return read_log_file(process.folder / "log", offset, limit)

    def collect(self, key: str) -> list[tuple[str, FileEntry]]:
        """Put a process's outputs into the blob store: (output name, file) pairs."""
        process = self._table.get(key)
        if process is None:
            raise KeyError(key)
        return gather(self.config.blobs, process.folder / "out")

    def save(self, workload: WorkloadId, path: str) -> FileEntry:
        """Move a checkpoint file that a rank has written into the blob store."""
        for process in self._table.tracked():
            file = process.folder / STORED / Path(path).name
            if process.spec.workload == workload and str(file) == path:
                entry = self.config.blobs.store(file, file.parent)
                file.unlink()  # a link itself, and not what it leads to
                return entry
        raise PermissionError(f"{path} is no checkpoint of a process of {workload}")

    def store_checkpoints(
        self, workload: WorkloadId, start_id: str, quiet_s: float
    ) -> FolderListing | None:
        """Put the files of a workload's KAREZ_CHECKPOINT_DIR into the blob store; see Fabric."""
        self._fence.touch()
        return self._checkpoints.store(workload, start_id, quiet_s)

    def reserve_port(self, workload: WorkloadId, start_id: str) -> int:
        """A free port of this node for a workload's own process group; see Fabric."""
        self._fence.touch()
        return self._ports.reserve(workload, start_id)

    def replica_server(self) -> str:
        """host:port of this node's replica server."""
        return f"{self.config.address}:{self._replicas.port}"

    def heartbeat(self) -> str:
        """host:port of this node's heartbeat."""
        return self._heartbeat.address

    def open_tunnel(self, workload: WorkloadId, ident: str, spec: TunnelSpec) -> None:
        """Open a tunnel to a process; see core.tunnels.Tunnels."""
        self._fence.touch()
        self._tunnels.open(workload, ident, spec, self.replica_server())

    def write_tunnel(
        self, workload: WorkloadId, ident: str, offset: int, data: bytes, end: bool
    ) -> int:
        """Take input of a tunnel; see core.tunnels.Tunnels."""
        return self._tunnels.write(workload, ident, offset, data, end=end)

    def read_tunnel(self, workload: WorkloadId, ident: str, offset: int) -> TunnelPiece:
        """Return output of a tunnel; see core.tunnels.Tunnels."""
        return self._tunnels.read(workload, ident, offset)

    def resize_tunnel(self, workload: WorkloadId, ident: str, terminal: Terminal) -> None:
        """Change the size of a terminal; see core.tunnels.Tunnels."""
        self._tunnels.resize(workload, ident, terminal)

    def close_tunnel(self, workload: WorkloadId, ident: str) -> None:
        """Close a tunnel. Repeatable."""
        self._tunnels.close(workload, ident)

    def stop(self) -> None:
        """End every process and clear shared memory."""
        for part in (self._tunnels, self._launcher, self._replicas):
            part.stop()
        self._heartbeat.stop()  # last: without it, control would not wait for the others
        self._ports.close()
        shutil.rmtree(self.memory, ignore_errors=True)

    def _prepare_folders(self) -> None:
        end_strays(str(self.memory / "steward.sock"))
        shutil.rmtree(self.memory, ignore_errors=True)
        self.memory.mkdir(mode=0o711, parents=True)  # containers' users find their folders in it
        (self.home / "work").mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.home / "memory.path").write_text(str(self.memory))
