"""The nodes of a Ray cluster as a Fabric: one detached actor, the steward, on each."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from karez.core import environment
from karez.core.artifacts import FileEntry
from karez.core.errors import StartFailed
from karez.core.fault_injection import FaultKind
from karez.core.nodes import Node, NodeId
from karez.core.ports import NodeEnded, NodeLost
from karez.core.processes import Poll, ProcessInfo, ProcessSample, ProcessSpec
from karez.core.workloads import WorkloadId
from karez.drivers.steward.config import StewardConfig
from karez.drivers.steward.heartbeat import BEAT_S, Heartbeat
from karez.drivers.steward.steward import Steward

HOST_LABEL = "karez-host"
_SPACE = "karez"
POLLS = 2
"""Polls in a row that a node may leave unanswered; together they last the silence it is allowed."""
FIRST_ANSWER_S = 20.0
"""How long a new node's agent may take to come up: it starts two interpreters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayEdge:
    """How to reach the Ray cluster, and what its stewards are told."""

    address: str
    steward: StewardConfig
    """A template: node, address and home are filled in for each node."""
    silence_s: float = 4.0
    heartbeat_s: float = 1.0
    """How long the pulse of a node with work on it may be silent."""


class RayFabric:
    """See core.ports.Fabric."""

    def __init__(self, edge: RayEdge) -> None:
        """Connect as a driver. Raises StartFailed if Ray does not answer."""
        self._edge = edge
        self._stewards: dict[NodeId, Any] = {}
        self._silent: set[NodeId] = set()
        self._pulses: dict[NodeId, Heartbeat] = {}
        self._lock = threading.Lock()
        _wait_for_port(edge.address)
        try:
            ray.init(
                address=edge.address,
                namespace=_SPACE,
                log_to_driver=False,
                logging_level="ERROR",
                configure_logging=False,
            )
        except (ConnectionError, RuntimeError, RayError) as error:
            raise StartFailed(part="Ray", detail=str(error)) from error

    def nodes(self) -> Sequence[Node]:
        """See Fabric."""
        asked: dict[NodeId, tuple[str, Any]] = {}
        is_new = False
        for row in ray.nodes():
            host = row.get("Labels", {}).get(HOST_LABEL)
            if row["Alive"] and host:
                is_new |= NodeId(host) not in self._stewards
                steward = self._ensure(NodeId(host), row)
                asked[NodeId(host)] = (row["NodeID"], steward.describe.remote())
        limit_s = FIRST_ANSWER_S if is_new else self._edge.silence_s
        if asked:  # all at once: a silent one costs the others nothing
            ray.wait([ref for _, ref in asked.values()], num_returns=len(asked), timeout=limit_s)
        found: list[Node] = []
        for node_id, (engine_id, ref) in asked.items():
            with contextlib.suppress(NodeLost):
                node: Node = self._answer(node_id, ref, 0.05)
                found.append(replace(node, engine_id=engine_id))
        return found

    def start(self, node: NodeId, spec: ProcessSpec) -> None:
        """See Fabric."""
        self._call(node, "start", spec)

    def send(self, node: NodeId, key: str, message: Mapping[str, Any]) -> None:
        """See Fabric."""
        self._call(node, "send", key, message)

    def kill(self, node: NodeId, key: str, *, grace_s: float = 0.0) -> None:
        """See Fabric."""
        self._call(node, "kill", key, grace_s)

    def purge(self, node: NodeId, workload: WorkloadId) -> None:
        """See Fabric."""
        self._call(node, "purge", workload, timeout_s=20.0)

    def processes(self, node: NodeId) -> Sequence[ProcessInfo]:
        """See Fabric."""
        found: Sequence[ProcessInfo] = self._call(node, "processes")
        return found

    def poll(self, node: NodeId, workload: WorkloadId, after: int, wait_s: float) -> Poll:
        """See Fabric. Whoever polls a node listens to its pulse too: silence ends the wait."""
        steward = self._stewards.get(node)
        if steward is None:
            raise NodeLost(f"{node} has no steward")
        pulse = self._heartbeat_of(node)
        if pulse.is_lost() and node in self._silent:
            _pause(BEAT_S)  # a node that is known to be lost is asked no more than it would beat
        ref = steward.poll.remote(workload, after, wait_s)
        deadline = time.monotonic() + wait_s + self._edge.silence_s / POLLS  # noqa: TID251 - an edge
        while not ray.wait([ref], timeout=BEAT_S / 2)[0]:
            if pulse.is_lost():
                self._silent.add(node)
                lost = NodeEnded if pulse.has_ended else NodeLost
                raise lost(f"{node} has no pulse")
            if time.monotonic() > deadline:  # noqa: TID251 - as above
                break
        answer: Poll = self._answer(node, ref, 0.05)
        return answer

    def _heartbeat_of(self, node: NodeId) -> Heartbeat:
        with self._lock:
            known = self._pulses.get(node)
        if known is None:
            address = str(self._call(node, "heartbeat"))
            known = Heartbeat(address, self._edge.steward.token, self._edge.heartbeat_s)
            with self._lock:
                self._pulses[node] = known
        return known

    def sample(
        self, node: NodeId, workload: WorkloadId, *, stacks: bool
    ) -> Sequence[ProcessSample]:
        """See Fabric."""
        found: Sequence[ProcessSample] = self._call(node, "sample", workload, stacks)
        return found

    def inject_fault(self, node: NodeId, workload: WorkloadId, key: str, what: FaultKind) -> None:
        """See Fabric."""
        self._call(node, "inject_fault", workload, key, what, timeout_s=20.0)

    def read_log(self, node: NodeId, key: str, offset: int, limit: int) -> bytes:
        """See Fabric."""
        return bytes(self._call(node, "read_log", key, offset, limit))

    def collect(self, node: NodeId, key: str) -> Sequence[tuple[str, FileEntry]]:
        """See Fabric."""
        found: Sequence[tuple[str, FileEntry]] = self._call(node, "collect", key, timeout_s=600.0)
        return found

    def save(self, node: NodeId, path: str) -> FileEntry:
        """See Fabric."""
        entry: FileEntry = self._call(node, "save", path, timeout_s=600.0)
        return entry

    def replica_server(self, node: NodeId) -> str:
        """See Fabric."""
        return str(self._call(node, "replica_server"))

    def stop_nodes(self) -> None:
        """See Fabric."""
        for node, steward in list(self._stewards.items()):
            with contextlib.suppress(NodeLost):
                self._call(node, "stop", timeout_s=15.0)
            ray.kill(steward)

    def close(self) -> None:
        """See Fabric."""
        ray.shutdown()

    def _ensure(self, node: NodeId, row: Mapping[str, Any]) -> Any:
        if node in self._stewards:
            return self._stewards[node]
        labels = row.get("Labels", {})
        config = replace(
            self._edge.steward,
            node=node,
            address=row["NodeManagerAddress"],
            home=str(self._edge.steward.home),
            labels={k: v for k, v in labels.items() if not k.startswith("ray.io/")},
        )
        actor = ray.remote(_HostedSteward).options(
            name=f"steward-{row['NodeID'][:16]}",
            namespace=_SPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_concurrency=64,
            label_selector={"ray.io/node-id": row["NodeID"]},
        )
        self._stewards[node] = actor.remote(config)
        return self._stewards[node]

    def _call(
        self, node: NodeId, method: str, *args: object, timeout_s: float | None = None
    ) -> Any:
        steward = self._stewards.get(node)
        if steward is None:
            raise NodeLost(f"{node} has no steward")
        if node in self._silent and method != "poll":
            raise NodeLost(f"{node} is silent")
        limit_s = self._edge.silence_s if timeout_s is None else timeout_s
        ref = getattr(steward, method).remote(*args)
        self._listen_while(node, ref, limit_s)
        return self._answer(node, ref, limit_s)

    def _listen_while(self, node: NodeId, ref: Any, limit_s: float) -> None:
        """Wait for an answer while the node has a pulse. Raises NodeLost when it has none."""
        deadline = time.monotonic() + limit_s  # noqa: TID251 - an edge owns its clock
        while not ray.wait([ref], timeout=BEAT_S)[0]:
            with self._lock:
                pulse = self._pulses.get(node)
            if pulse is None or time.monotonic() > deadline:  # noqa: TID251 - as above
                return
            if pulse.is_lost():
                self._silent.add(node)
                raise NodeLost(f"{node} has no pulse")

    def _drop_heartbeat(self, node: NodeId) -> None:
        with self._lock:
            pulse = self._pulses.pop(node, None)
        if pulse is not None:
            pulse.close()

    def _answer(self, node: NodeId, ref: Any, limit_s: float) -> Any:
        """A steward's answer. Who once kept silent is only polled and described until it speaks."""
        try:
            answer = ray.get(ref, timeout=limit_s)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except GetTimeoutError as error:
            self._silent.add(node)
            raise NodeLost(f"{node} is silent for {limit_s} s") from error
        except RayError as error:
            self._stewards.pop(node, None)
            self._drop_heartbeat(node)
            raise NodeLost(f"{node}: {type(error).__name__}") from error
        self._silent.discard(node)
        return answer


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


class _HostedSteward(Steward):
    """A steward inside a Ray actor: its folder comes from the node's own environment."""

    def __init__(self, config: StewardConfig) -> None:
        home = os.environ.get(environment.NODE_HOME, config.home)  # noqa: TID251 - set by `join`
        is_remote = home != config.home
        blobs = replace(config.blobs, folder="") if is_remote else config.blobs
        cpus = int(os.environ.get(environment.NODE_CPUS, config.cpus))  # noqa: TID251 - as above
        super().__init__(replace(config, home=home, blobs=blobs, cpus=cpus))


def _wait_for_port(address: str, *, within_s: float = 60.0) -> None:
    """Until the head listens: Ray's own waiting costs 5 s a try. Raises StartFailed."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + within_s  # noqa: TID251 - an edge owns its clock
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1.0).close()
        except OSError as error:
            if time.monotonic() > deadline:  # noqa: TID251 - as above
                raise StartFailed(part="Ray", detail=f"nothing listens at {address}.") from error
            time.sleep(0.05)  # noqa: TID251 - as above
        else:
            return
