"""Nodes without processes: a Fabric whose ranks and engines are models on a timeline."""

import hashlib
import io
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from karez.core.artifacts import FileEntry
from karez.core.checkpoint_folder import FolderListing
from karez.core.errors import NotFound
from karez.core.fault_injection import FaultKind
from karez.core.messages.orders import ORDERS, Order
from karez.core.messages.reports import ExitReport, Report, StartedReport
from karez.core.messages.wire import Malformed, content, decode, encode
from karez.core.nodes import Node, NodeId
from karez.core.ports import NodeEnded, NodeLost, PollAnswer
from karez.core.processes import Cursors, LogChunk, Poll, ProcessInfo, ProcessSample, ProcessSpec
from karez.core.workloads import WorkloadId
from karez.drivers.steward.event_log import EventLog
from tests.fakes import NoTunnels
from tests.sim.timeline import Timeline

START_S = 0.2
"""Seconds until a process runs."""
KILLED, TERMINATED = -9, -15
Snapshots = dict[tuple[str, int], dict[int, int]]
"""(job, rank) -> step -> generation in which it was written."""


class FakeBlobs:
    """Blobs in a dict."""

    def __init__(self) -> None:
        self._bodies: dict[str, bytes] = {}

    def put(self, source: BinaryIO, *, expect: str = "") -> FileEntry:
        body = source.read()
        digest = hashlib.sha256(body).hexdigest()
        assert expect in ("", digest)
        self._bodies[digest] = body
        return FileEntry(path="blob", sha256=digest, size_bytes=len(body))

    def open(self, digest: str) -> BinaryIO:
        if digest not in self._bodies:
            raise NotFound(noun="blob", name=digest)
        return io.BytesIO(self._bodies[digest])

    def has(self, digest: str) -> bool:
        return digest in self._bodies

    def digests(self) -> Iterable[str]:
        return list(self._bodies)

    def set_aside(self, digest: str) -> None:
        del self._bodies[digest]

    def local(self, digest: str) -> Path | None:
        return None


@dataclass
class FakeNode:
    node: Node
    is_up: bool = True
    boots: int = 1
    processes: dict[str, "FakeProcess"] = field(default_factory=dict)
    log: EventLog = field(default_factory=EventLog)
    own: Snapshots = field(default_factory=dict)
    """Of the ranks on this node, in shared memory."""
    replicas: Snapshots = field(default_factory=dict)
    """Of ranks on other nodes."""
    ports: dict[WorkloadId, tuple[str, int]] = field(default_factory=dict)
    """Workload -> (id of its start, its port)."""

    @property
    def boot_id(self) -> str:
        return f"boot-{self.boots}"

    def forget_all(self) -> None:
        """The node agent starts without processes and without memory."""
        self.boots += 1
        self.processes, self.log = {}, EventLog()
        self.own, self.replicas, self.ports = {}, {}, {}


@dataclass
class FakeProcess:
    spec: ProcessSpec
    home: FakeNode
    info: ProcessInfo
    on_order: Callable[[Order], None] = lambda order: None

    @property
    def is_alive(self) -> bool:
        return self.info.alive and self.home.is_up and self.is_known

    @property
    def is_known(self) -> bool:
        return self.home.processes.get(self.spec.key) is self


class FakeFabric(NoTunnels):
    """The nodes, as control sees them. `begin` gives each process its behaviour."""

    def __init__(self, timeline: Timeline, nodes: Sequence[Node]) -> None:
        self.timeline = timeline
        self.blobs = FakeBlobs()
        self.all = {node.id: FakeNode(node=node) for node in nodes}
        self.begin: Callable[[FakeProcess], None] = lambda process: None
        self.on_end: Callable[[FakeProcess], None] = lambda process: None
        self.sample_of: Callable[[FakeProcess], ProcessSample] = lambda process: ProcessSample(
            key=process.spec.key, state="sleeping", cpu_s=0.0
        )
        self.calls = 0
        self._pids = 0
        self._ports = itertools.count(20_000)
        self.has_news = True
        """Whether something has happened since the last poll."""
        self._asked: Mapping[NodeId, Cursors] = {}

    def up(self, node: NodeId) -> FakeNode:
        self.calls += 1
        found = self.all.get(node)
        if found is None or not found.is_up:
            raise NodeLost(node)
        return found

    def nodes(self) -> Sequence[Node]:
        return [replace(n.node, engine_id=n.boot_id) for n in self.all.values() if n.is_up]

    def start(self, node: NodeId, spec: ProcessSpec) -> None:
        home = self.up(node)
        existing = home.processes.get(spec.key)
        if existing is not None:
            if existing.spec.epoch >= spec.epoch:
                return
            self._clear(home, spec.workload)
        info = ProcessInfo(
            key=spec.key,
            workload=spec.workload,
            rank=spec.rank,
            epoch=spec.epoch,
            pid=0,
            alive=True,
            grant=spec.grant,
        )
        process = home.processes[spec.key] = FakeProcess(spec=spec, home=home, info=info)
        self.timeline.after(START_S, lambda: self._run(process))

    def _run(self, process: FakeProcess) -> None:
        if process.is_alive:
            self._pids += 1
            process.info = replace(process.info, pid=self._pids)
            self.report(process, StartedReport(pid=self._pids))
            self.begin(process)

    def report(self, process: FakeProcess, report: Report) -> None:
        """A process, or its node agent, tells control something."""
        if process.is_known and process.home.is_up:
            data = content(encode(report))
            messages = {**process.info.last_messages, report.TYPE: data}
            process.info = replace(process.info, last_messages=messages)
            self.tell(process, report.TYPE, data)

    def tell(self, process: FakeProcess, kind: str, data: Mapping[str, Any]) -> None:
        """Put an event into a node's log, whatever is in it."""
        workload, key = process.spec.workload, process.spec.key
        now, self.has_news = self.timeline.now(), True
        process.home.log.add(workload, key=key, kind=kind, data=data, at=now, due_s=now)

    def end(self, process: FakeProcess, code: int, error: str = "") -> None:
        """A process ends."""
        if process.is_alive:
            process.info = replace(process.info, alive=False, exit_code=code, error=error)
            self.report(process, ExitReport(code=code, error=error))
            self.on_end(process)

    def send(self, node: NodeId, key: str, message: Mapping[str, Any]) -> None:
        process = self.up(node).processes.get(key)
        order = decode(ORDERS, message)
        assert not isinstance(order, Malformed), order
        if process is not None and process.is_alive:
            self.timeline.after(0.001, lambda: self._give(process, order))

    def _give(self, process: FakeProcess, order: Order) -> None:
        if process.is_alive:
            process.on_order(order)

    def kill(self, node: NodeId, key: str, *, grace_s: float = 0.0) -> None:
        process = self.up(node).processes.get(key)
        if process is None:
            return
        if grace_s:
            self.timeline.after(grace_s / 2, lambda: self.end(process, TERMINATED))
        else:
            self.end(process, KILLED)

    def purge(self, node: NodeId, workload: WorkloadId) -> None:
        home = self.up(node)
        self._clear(home, workload)
        home.ports.pop(workload, None)

    def _clear(self, home: FakeNode, workload: WorkloadId) -> None:
        for key in [k for k, p in home.processes.items() if p.spec.workload == workload]:
            self.end(home.processes[key], KILLED)
            del home.processes[key]
        home.log.drop(workload)
        for kept in (home.own, home.replicas):
            for name in [name for name in kept if name[0] == workload]:
                del kept[name]

    def processes(self, node: NodeId) -> Sequence[ProcessInfo]:
        return [process.info for process in self.up(node).processes.values()]

    def poll(self, cursors: Mapping[NodeId, Cursors], wait_s: float) -> Mapping[NodeId, PollAnswer]:
        answers: dict[NodeId, PollAnswer] = {}
        if not self.has_news and cursors == self._asked:
            return answers
        self.has_news, self._asked = False, cursors
        for node, of_node in cursors.items():
            home = self.all.get(node)
            if home is not None and home.is_up:
                boot_ids = dict.fromkeys(of_node, home.boot_id)
                events = home.log.after(of_node)
                answers[node] = Poll(cursors=of_node, events=events, boot_ids=boot_ids)
            else:
                answers[node] = NodeEnded(node)
        return answers

    def sample(
        self, node: NodeId, workload: WorkloadId, *, stacks: bool
    ) -> Sequence[ProcessSample]:
        found = self.up(node).processes.values()
        return [
            self.sample_of(process)
            for process in found
            if process.spec.workload == workload and process.is_alive and process.spec.rank >= 0
        ]

    def inject_fault(self, node: NodeId, workload: WorkloadId, key: str, what: FaultKind) -> None:
        raise NotImplementedError

    def read_log(self, node: NodeId, key: str, offset: int, limit: int) -> LogChunk:
        self.up(node)
        return LogChunk(start=offset, data=b"")

    def collect(self, node: NodeId, key: str) -> Sequence[tuple[str, FileEntry]]:
        assert key in self.up(node).processes
        return []

    def save(self, node: NodeId, workload: WorkloadId, path: str) -> FileEntry:
        self.up(node)
        return self.blobs.put(io.BytesIO(path.encode()))

    def store_checkpoints(
        self, node: NodeId, workload: WorkloadId, start_id: str, quiet_s: float
    ) -> FolderListing | None:
        self.up(node)
        return None

    def reserve_port(self, node: NodeId, workload: WorkloadId, start_id: str) -> int:
        ports = self.up(node).ports
        if ports.get(workload, ("", 0))[0] != start_id:
            ports[workload] = (start_id, next(self._ports))
        return ports[workload][1]

    def replica_server(self, node: NodeId) -> str:
        self.up(node)
        return f"{node}:1"

    def stop_nodes(self) -> None:
        return

    def close(self) -> None:
        return

    # faults

    def power_off(self, node: NodeId) -> None:
        """A node is gone at once, with all that was on it."""
        self.has_news = True
        home = self.all[node]
        lost = list(home.processes.values())
        home.is_up = False
        home.forget_all()
        for process in lost:
            self.on_end(process)

    def power_on(self, node: NodeId) -> None:
        self.all[node].is_up = True

    def restart_agent(self, node: NodeId) -> None:
        """The node agent dies with its processes and starts again, before anyone asks."""
        self.has_news = True
        lost = list(self.all[node].processes.values())
        self.all[node].forget_all()
        for process in lost:
            self.on_end(process)
