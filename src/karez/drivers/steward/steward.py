"""A node's only agent: starts processes, hears them, watches them, and reports.

It knows nothing of jobs' meaning: messages between a process and its foreman pass through as they
are. Ray hosts it as an actor (drivers.ray_fabric); nothing here imports Ray.
"""

import secrets
import shutil
import signal
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from karez.core import environment
from karez.core.artifacts import FileEntry
from karez.core.errors import KarezError
from karez.core.fault_injection import FaultKind
from karez.core.nodes import Node, NodeId
from karez.core.processes import Event, Poll, ProcessInfo, ProcessSample, ProcessSpec
from karez.core.workloads import WorkloadId
from karez.drivers.probes import probe_node
from karez.drivers.steward.child_processes import ForkServerClient, ReplicaServerProcess, inherited
from karez.drivers.steward.config import StewardConfig
from karez.drivers.steward.environment import cores_of, process_env
from karez.drivers.steward.heartbeat import HeartbeatServer
from karez.drivers.steward.process_inspector import inject_fault, sample_process
from karez.drivers.steward.replica_server import token_of
from karez.drivers.steward.resource_limits import LOOK_S, OVER_CODE, over_limit
from karez.drivers.steward.staging import gather, lay_out
from karez.transport import framing

EVENT_LIMIT = 20_000
"""Events remembered per workload; a control that falls further behind looks at `processes`."""


@dataclass(slots=True, kw_only=True)
class _Process:
    """A process and what is known of it."""

    spec: ProcessSpec
    folder: Path
    info: ProcessInfo
    stream: socket.socket | None = None
    pending: list[Mapping[str, Any]] = field(default_factory=list)
    over: str = ""
    """What it took beyond its grant, once it is being ended for that."""


class Steward:
    """All methods may be called from several threads."""

    def __init__(self, config: StewardConfig) -> None:
        """Start the nursery, the keeper and the listener for ranks."""
        self.config = config
        self.boot = secrets.token_hex(4)
        self.home = Path(config.home)
        self.memory = Path("/dev/shm") / f"karez-{config.tag}"  # noqa: S108 - shared memory is meant
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._processes: dict[str, _Process] = {}
        self._events: dict[WorkloadId, list[Event]] = {}
        self._boots: dict[WorkloadId, str] = {}
        """Workloads that lost this node, by chaos, since it started."""
        self._seq = 0
        self._heard_at = time.monotonic()  # noqa: TID251 - the agent owns its own clock
        shutil.rmtree(self.memory, ignore_errors=True)  # no process of an earlier steward lives
        self.memory.mkdir(mode=0o700, parents=True)
        (self.home / "work").mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.home / "memory.path").write_text(str(self.memory))
        log = self.home / "nursery.log"
        self._cold = ForkServerClient(log, "", self._on_fork_server_message)
        self._warm = ForkServerClient(log, config.preload, self._on_fork_server_message)
        self._keeper = ReplicaServerProcess(config.address, config.token, self.memory)
        self._pulse = HeartbeatServer(config.address, config.token)
        self.socket_path = str(self.memory / "steward.sock")
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(self.socket_path)
        self._server.listen(64)
        for loop in (self._accept, self._fence, self._hold_to_grants):
            threading.Thread(target=loop, daemon=True).start()

    def describe(self) -> Node:
        """This node, probed anew."""
        self._touch()
        config = self.config
        node = probe_node(NodeId(config.node), config.address, cpus=config.cpus, folder=config.home)
        return replace(node, labels=config.labels)

    def start(self, spec: ProcessSpec) -> None:
        """See Fabric."""
        self._touch()
        with self._lock:
            known = self._processes.get(spec.key)
            if known is not None and known.spec.epoch >= spec.epoch:
                return
        if known is not None:
            self.purge(spec.workload)  # left over from an epoch that has passed
        with self._lock:
            info = ProcessInfo(
                key=spec.key,
                workload=spec.workload,
                rank=spec.rank,
                epoch=spec.epoch,
                pid=0,
                alive=True,
                grant=spec.grant,
            )
            folder = self.home / "work" / spec.workload / spec.key
            self._processes[spec.key] = _Process(spec=spec, folder=folder, info=info)
        threading.Thread(target=self._launch, args=(spec, folder), daemon=True).start()

    def send(self, key: str, message: Mapping[str, Any]) -> None:
        """See Fabric. A process that has not connected yet gets it when it does."""
        self._touch()
        with self._lock:
            process = self._processes.get(key)
            if process is None or not process.info.alive:
                return
            if process.stream is None:
                process.pending.append(message)
                return
            stream = process.stream
        try:
            framing.send(stream, message)
        except OSError:
            return  # it has just died; its exit is on the way

    def kill(self, key: str, grace_s: float = 0.0) -> None:
        """See Fabric."""
        self._touch()
        if grace_s > 0:
            self._to_fork_server({"op": "kill", "key": key, "signal": int(signal.SIGTERM)})
            again = threading.Timer(grace_s, self.kill, args=(key,))
            again.daemon = True
            again.start()
        else:
            self._to_fork_server({"op": "kill", "key": key, "signal": int(signal.SIGKILL)})

    def purge(self, workload: WorkloadId) -> None:
        """See Fabric."""
        self._touch()
        with self._lock:
            keys = [k for k, p in self._processes.items() if p.spec.workload == workload]
        for key in keys:
            self.kill(key)
        with self._lock:
            self._news.wait_for(
                lambda: (
                    not any(self._processes[k].info.alive for k in keys if k in self._processes)
                ),
                timeout=10.0,
            )
            for key in keys:
                self._processes.pop(key, None)
            self._events.pop(workload, None)
        shutil.rmtree(self.memory / workload, ignore_errors=True)
        shutil.rmtree(self.home / "work" / workload, ignore_errors=True)
        self._keeper.drop(workload)

    def processes(self) -> Sequence[ProcessInfo]:
        """See Fabric."""
        self._touch()
        with self._lock:
            return [process.info for process in self._processes.values()]

    def poll(self, workload: WorkloadId, after: int, wait_s: float) -> Poll:
        """See Fabric."""
        self._touch()
        with self._news:
            self._news.wait_for(lambda: self._after(workload, after), timeout=wait_s)
            boot = self._boots.get(workload, self.boot)
            return Poll(
                events=tuple(self._after(workload, after)), seq=self._seq, agent_boot_id=boot
            )

    def sample(self, workload: WorkloadId, stacks: bool) -> Sequence[ProcessSample]:
        """See Fabric."""
        self._touch()
        return [
            sample_process(info, self.snapshot_folder(info), stacks=stacks)
            for info in self._alive(workload)
        ]

    def inject_fault(self, workload: WorkloadId, key: str, what: FaultKind) -> None:
        """See Fabric. What only the ranks can do to themselves, they are told."""
        self._touch()
        if what == FaultKind.NODE:
            with self._news:  # first: whoever listens must not take it for ranks that died
                self._boots[workload] = secrets.token_hex(4)
                self._news.notify_all()
            self.purge(workload)
        elif what == FaultKind.REPLICA_SERVER:
            self._keeper.kill()
        elif what in (FaultKind.CORRUPT, FaultKind.LINK):
            self.send(key, {"type": "corrupt" if what == FaultKind.CORRUPT else "cut"})
        else:
            inject_fault([info for info in self._alive(workload) if info.key == key], what)

    def snapshot_folder(self, info: ProcessInfo) -> Path:
        """Where a rank's snapshots are."""
        return self.memory / info.workload / f"{info.rank}.slots"

    def read_log(self, key: str, offset: int, limit: int) -> bytes:
        """See Fabric."""
        with self._lock:
            process = self._processes.get(key)
        path = None if process is None else process.folder / "log"
        if path is None or not path.exists():
            return b""
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(limit)

    def collect(self, key: str) -> list[tuple[str, FileEntry]]:
        """See Fabric."""
        with self._lock:
            folder = self._processes[key].folder
        return gather(self.config.blobs, folder / "out")

    def save(self, path: str) -> FileEntry:
        """See Fabric. Only files below this node's work folder."""
        file = Path(path).resolve()
        if not file.is_relative_to((self.home / "work").resolve()):
            raise PermissionError(f"{path} is outside the work folder")
        entry = self.config.blobs.store(file)
        file.unlink()
        return entry

    def replica_server(self) -> str:
        """See Fabric."""
        return f"{self.config.address}:{self._keeper.port}"

    def heartbeat(self) -> str:
        """host:port of this node's pulse."""
        return self._pulse.address

    def stop(self) -> None:
        """End every process and clear shared memory."""
        for child in (self._pulse, self._warm, self._cold, self._keeper):
            child.stop()
        shutil.rmtree(self.memory, ignore_errors=True)

    # inside

    def _launch(self, spec: ProcessSpec, folder: Path) -> None:
        try:
            for name in ("inputs", "out", "code", "restore"):
                (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            lay_out(self.config.blobs, spec.code, folder / "code")
            for staged in spec.inputs:
                lay_out(self.config.blobs, staged.files, folder / "inputs" / staged.folder)
            for name, digest in spec.restore.items():
                self.config.blobs.fetch(digest, folder / "restore" / name)
        except (KarezError, OSError) as error:
            self._ended(spec.key, 127, str(error))
            return
        self._to_fork_server(
            {
                "op": "start",
                "key": spec.key,
                "command": spec.command,
                "warm": spec.warm,
                "env": {**self._own_environment(spec), **process_env(spec, folder)},
                "cwd": str(folder / "code"),
                "log": str(folder / "log"),
                "cpus": cores_of(spec.grant),
            }
        )

    def _own_environment(self, spec: ProcessSpec) -> dict[str, str]:
        return {
            **inherited(),
            **self.config.environment(),
            environment.STEWARD: self.socket_path,
            environment.KEEPER: self.replica_server(),
            environment.KEEPER_TOKEN: token_of(self.config.token, spec.workload),
            environment.SLOTS: str(self.memory / spec.workload / f"{spec.rank}.slots"),
        }

    def _to_fork_server(self, request: Mapping[str, Any]) -> None:
        """Starts go to the warm or the cold one; a kill goes to both, one of which knows it."""
        is_start = request["op"] == "start"
        for line in (self._warm, self._cold):
            if is_start and (line is self._warm) != request["warm"]:
                continue
            try:
                line.ask(request)
            except OSError:
                if is_start:
                    self._ended(request["key"], 127, "the nursery of this node has ended")

    def _on_fork_server_message(self, report: Mapping[str, Any] | None) -> None:
        if report is None:
            with self._lock:
                alive = [key for key, p in self._processes.items() if p.info.alive]
            for key in alive:
                self._ended(key, -int(signal.SIGKILL), "a nursery of this node has ended")
        elif report["event"] == "started":
            self._change(report["key"], pid=report["pid"])
            self._publish(report["key"], "started", {"pid": report["pid"]})
        elif report["event"] == "exit":
            self._ended(report["key"], report["code"], "")

    def _accept(self) -> None:
        while True:
            stream, _ = self._server.accept()
            threading.Thread(target=self._on_message, args=(stream,), daemon=True).start()

    def _on_message(self, stream: socket.socket) -> None:
        try:
            hello, _ = framing.receive(stream)
            key = str(hello["key"])
            with self._lock:
                process = self._processes[key]
                process.stream = stream
                for message in process.pending:
                    framing.send(stream, message)
                process.pending.clear()
            while True:
                message, _ = framing.receive(stream)
                self._publish(key, str(message.pop("type")), message)
        except (EOFError, OSError, KeyError, ValueError):
            stream.close()

    def _publish(self, key: str, kind: str, data: Mapping[str, Any]) -> None:
        with self._news:
            process = self._processes.get(key)
            if process is None:
                return
            said = {**process.info.last_messages, kind: data}
            process.info = replace(process.info, last_messages=said)
            self._seq += 1
            events = self._events.setdefault(process.spec.workload, [])
            at = time.time()  # noqa: TID251 - the agent stamps what it sees
            events.append(Event(seq=self._seq, at=at, key=key, type=kind, data=data))
            del events[:-EVENT_LIMIT]
            self._news.notify_all()

    def _hold_to_grants(self) -> None:
        """End what takes more memory or storage than it was granted."""
        while True:
            with self._lock:
                alive = [p for p in self._processes.values() if p.info.alive and p.info.pid]
            for process in alive:
                grant = process.spec.grant
                if grant is None or not (grant.memory_bytes or grant.storage_bytes):
                    continue
                process.over = over_limit(grant, process.info.pid, process.folder)
                if process.over:
                    request = {"op": "kill", "key": process.spec.key}
                    self._to_fork_server({**request, "signal": int(signal.SIGKILL)})
            threading.Event().wait(LOOK_S)

    def _ended(self, key: str, code: int, error: str) -> None:
        with self._lock:
            known = self._processes.get(key)
            if known is not None and known.over:
                code, error = OVER_CODE, known.over
        self._change(key, alive=False, exit_code=code, error=error)
        self._publish(key, "exit", {"code": code, "error": error})

    def _change(self, key: str, **fields: Any) -> None:
        with self._lock:
            if key in self._processes:
                process = self._processes[key]
                process.info = replace(process.info, **fields)

    def _after(self, workload: WorkloadId, after: int) -> list[Event]:
        events = self._events.get(workload, [])
        first = len(events)
        while first and events[first - 1].seq > after:
            first -= 1
        return events[first:]

    def _alive(self, workload: WorkloadId) -> list[ProcessInfo]:
        with self._lock:
            known = [process.info for process in self._processes.values()]
        return [i for i in known if i.workload == workload and i.alive and i.pid and i.rank >= 0]

    def _touch(self) -> None:
        self._heard_at = time.monotonic()  # noqa: TID251 - as above

    def _fence(self) -> None:
        """Stop work when no control has been heard for too long: another may own it now."""
        while True:
            silent_s = time.monotonic() - self._heard_at  # noqa: TID251 - as above
            if silent_s > self.config.fence_s:
                with self._lock:
                    alive = [key for key, p in self._processes.items() if p.info.alive]
                for key in alive:
                    self._to_fork_server({"op": "kill", "key": key, "signal": int(signal.SIGKILL)})
            threading.Event().wait(min(5.0, self.config.fence_s / 4))
