"""The nodes of a Ray cluster as a Fabric: one detached actor, the steward, on each."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
import structlog
from ray.exceptions import RayError
from typing_extensions import override

from karez.core.artifacts import FileEntry
from karez.core.checkpoint_folder import FolderListing
from karez.core.errors import ProtocolMismatch, StartFailed
from karez.core.fault_injection import FaultKind
from karez.core.nodes import Node, NodeId
from karez.core.ports import Fabric, NodeLost, PollAnswer
from karez.core.processes import Cursors, LogChunk, ProcessInfo, ProcessSample, ProcessSpec
from karez.core.tunnels import Terminal, TunnelPiece, TunnelSpec
from karez.core.workloads import WorkloadId
from karez.drivers.ray_stewards import NAMESPACE, RayEdge, RayStewards, wait_for_port
from karez.drivers.steward.steward import Steward

log = structlog.get_logger()
HOST_LABEL = "karez-host"
FIRST_ANSWER_S = 20.0
"""Seconds that a new node's agent may take to start: it starts two interpreters."""
PURGE_S = 20.0
TRANSFER_S = 600.0
"""Seconds that a node may take to upload outputs."""
STOP_S = 15.0
TUNNEL_S = 15.0
"""Seconds that a call of a tunnel may take: it waits for a command to start, or for bytes."""


class RayFabric(Fabric):
    """Calls the steward of each node."""

    def __init__(self, edge: RayEdge) -> None:
        """Connect as a driver. Raises StartFailed if Ray does not answer."""
        self._edge = edge
        self._stewards = RayStewards(edge)
        self._refused: set[str] = set()
        """Ids of nodes that run another release of karez."""
        wait_for_port(edge.address)
        try:
            ray.init(
                address=edge.address,
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level="ERROR",
                configure_logging=False,
            )
        except (ConnectionError, RuntimeError, RayError) as error:
            raise StartFailed(part="Ray", detail=str(error)) from error

    @override
    def nodes(self) -> Sequence[Node]:
        requests: dict[NodeId, tuple[str, Any]] = {}
        is_new = False
        for row in ray.nodes():
            host = row.get("Labels", {}).get(HOST_LABEL)
            if row["Alive"] and host:
                is_new |= NodeId(host) not in self._stewards
                steward = self._stewards.ensure(NodeId(host), row)
                requests[NodeId(host)] = (row["NodeID"], steward.describe.remote())
        limit_s = FIRST_ANSWER_S if is_new else self._edge.silence_s
        if requests:  # all at once: a silent node does not delay the others
            refs = [ref for _, ref in requests.values()]
            ray.wait(refs, num_returns=len(refs), timeout=limit_s)
        nodes: list[Node] = []
        for node_id, (engine_id, ref) in requests.items():
            try:
                node: Node = self._stewards.answer(node_id, ref, 0.05)
            except NodeLost:
                continue
            except ProtocolMismatch as mismatch:
                self._refuse(engine_id, node_id, mismatch)
                continue
            nodes.append(replace(node, engine_id=engine_id))
        return nodes

    def _refuse(self, engine_id: str, node: NodeId, mismatch: ProtocolMismatch) -> None:
        """Leave a node of another release out of the pool, and log it once."""
        if engine_id not in self._refused:
            self._refused.add(engine_id)
            log.error("node.refused", node=node, why=mismatch.problem)

    @override
    def start(self, node: NodeId, spec: ProcessSpec) -> None:
        self._stewards.call(node, Steward.start, spec)

    @override
    def send(self, node: NodeId, key: str, message: Mapping[str, Any]) -> None:
        self._stewards.call(node, Steward.send, key, message)

    @override
    def kill(self, node: NodeId, key: str, *, grace_s: float = 0.0) -> None:
        self._stewards.call(node, Steward.kill, key, grace_s)

    @override
    def purge(self, node: NodeId, workload: WorkloadId) -> None:
        self._stewards.call_within(PURGE_S, node, Steward.purge, workload)

    @override
    def processes(self, node: NodeId) -> Sequence[ProcessInfo]:
        return self._stewards.call(node, Steward.processes)

    @override
    def poll(self, cursors: Mapping[NodeId, Cursors], wait_s: float) -> Mapping[NodeId, PollAnswer]:
        return self._stewards.poll(cursors, wait_s)

    @override
    def sample(
        self, node: NodeId, workload: WorkloadId, *, stacks: bool
    ) -> Sequence[ProcessSample]:
        return self._stewards.call(node, Steward.sample, workload, stacks)

    @override
    def inject_fault(self, node: NodeId, workload: WorkloadId, key: str, what: FaultKind) -> None:
        self._stewards.call_within(PURGE_S, node, Steward.inject_fault, workload, key, what)

    @override
    def read_log(self, node: NodeId, key: str, offset: int, limit: int) -> LogChunk:
        return self._stewards.call(node, Steward.read_log, key, offset, limit)

    @override
    def collect(self, node: NodeId, key: str) -> Sequence[tuple[str, FileEntry]]:
        return self._stewards.call_within(TRANSFER_S, node, Steward.collect, key)

    @override
    def save(self, node: NodeId, workload: WorkloadId, path: str) -> FileEntry:
        return self._stewards.call_within(TRANSFER_S, node, Steward.save, workload, path)

    @override
    def store_checkpoints(
        self, node: NodeId, workload: WorkloadId, start_id: str, quiet_s: float
    ) -> FolderListing | None:
        return self._stewards.call_within(
            TRANSFER_S, node, Steward.store_checkpoints, workload, start_id, quiet_s
        )

    @override
    def reserve_port(self, node: NodeId, workload: WorkloadId, start_id: str) -> int:
        return self._stewards.call(node, Steward.reserve_port, workload, start_id)

    @override
    def replica_server(self, node: NodeId) -> str:
        return self._stewards.call(node, Steward.replica_server)

    @override
    def open_tunnel(self, node: NodeId, workload: WorkloadId, ident: str, spec: TunnelSpec) -> None:
        self._stewards.ask_within(TUNNEL_S, node, Steward.open_tunnel, workload, ident, spec)

    @override
    def write_tunnel(
        self, node: NodeId, workload: WorkloadId, ident: str, offset: int, data: bytes, end: bool
    ) -> int:
        return self._stewards.ask_within(
            TUNNEL_S, node, Steward.write_tunnel, workload, ident, offset, data, end
        )

    @override
    def read_tunnel(
        self, node: NodeId, workload: WorkloadId, ident: str, offset: int
    ) -> TunnelPiece:
        return self._stewards.ask_within(
            TUNNEL_S, node, Steward.read_tunnel, workload, ident, offset
        )

    @override
    def resize_tunnel(
        self, node: NodeId, workload: WorkloadId, ident: str, terminal: Terminal
    ) -> None:
        self._stewards.ask_within(TUNNEL_S, node, Steward.resize_tunnel, workload, ident, terminal)

    @override
    def close_tunnel(self, node: NodeId, workload: WorkloadId, ident: str) -> None:
        self._stewards.ask_within(TUNNEL_S, node, Steward.close_tunnel, workload, ident)

    @override
    def stop_nodes(self) -> None:
        for node, actor in self._stewards.items():
            with contextlib.suppress(NodeLost):
                self._stewards.call_within(STOP_S, node, Steward.stop)
            ray.kill(actor)

    @override
    def close(self) -> None:
        self._stewards.close()
        ray.shutdown()
