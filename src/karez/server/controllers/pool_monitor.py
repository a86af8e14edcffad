"""Watches the nodes: records them, marks lost ones, evicts bad ones, and collects orphans."""

from collections.abc import Callable, Mapping

import structlog

from karez.core.nodes import Node, NodeId, NodeState
from karez.core.ports import Fabric, NodeLost
from karez.core.workloads import Allocation, WorkloadId
from karez.server.controllers.control_context import ControlContext, Edges
from karez.server.controllers.orphan_collector import OrphanCollector

log = structlog.get_logger()


class PoolMonitor:
    """Brings the store's list of nodes up to date with the fabric."""

    def __init__(self, context: ControlContext, wake: Callable[[], None]) -> None:
        """Start without nodes; `wake` runs the scheduler at once."""
        self._context = context
        self._wake = wake
        self._engine_ids: dict[NodeId, str] = {}
        """Node -> the id of its agent's host process when it was last seen."""
        self._orphans = OrphanCollector(start_s=context.settings.start_s)

    def check(self, edges: Edges) -> None:
        """Read all nodes once, and act on what has changed."""
        store, now = self._context.store, self._context.clock.now()
        nodes = edges.fabric.nodes()
        store.pool.record_nodes(nodes, now=now)
        self._mark_lost({node.id for node in nodes}, now)
        edges.eviction.evaluate(nodes)
        allocations = store.workloads.allocations()
        for node in nodes:
            self._note_new(node)
            self._collect_orphans(node.id, edges.fabric, allocations, now)

    def _mark_lost(self, present: set[NodeId], now: float) -> None:
        store, limit_s = self._context.store, self._context.settings.node_silence_s
        for node in store.pool.nodes():
            silent_s = now - node.seen_at
            is_late = not 0 <= silent_s <= limit_s
            if node.id not in present and node.state != NodeState.LOST and is_late:
                store.pool.set_node(node.id, NodeState.LOST)
                log.warning("node.lost", node=node.id, silent_s=round(silent_s, 1))

    def _note_new(self, node: Node) -> None:
        if self._engine_ids.get(node.id) != node.engine_id:
            self._engine_ids[node.id] = node.engine_id
            log.info("node.seen", node=node.id, devices=len(node.devices))
            self._wake()

    def _collect_orphans(
        self,
        node: NodeId,
        fabric: Fabric,
        allocations: Mapping[WorkloadId, Allocation],
        now: float,
    ) -> None:
        """End processes on a node that no allocation covers."""
        try:
            processes = fabric.processes(node)
            for workload in self._orphans.overdue(node, processes, allocations, now):
                fabric.purge(node, workload)
                log.info("node.swept", node=node, workload=workload)
        except NodeLost:
            return
