"""Evicts nodes that fail repeatedly, and readmits them after a rest."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from karez.core.devices import Health
from karez.core.nodes import Node, NodeId, NodeState
from karez.core.ports import Clock
from karez.core.recovery import FaultReport, Severity
from karez.core.stores.store import Store
from karez.training.recovery.node_health import EVICTED, judge_nodes

log = structlog.get_logger()
MEMORY_S = 7 * 86_400.0
"""Seconds for which evictions and fault reports count."""


@dataclass(slots=True, kw_only=True)
class NodeEviction:
    """Evicts unhealthy nodes; job controllers ask which nodes to avoid."""

    store: Store
    clock: Clock
    _evicted: Mapping[NodeId, str] = field(default_factory=dict)
    """Evicted node -> why."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def nodes_to_avoid(self) -> Mapping[NodeId, str]:
        """Evicted nodes, with the reason for each."""
        return self._evicted

    def evaluate(self, seen: Sequence[Node]) -> None:
        """Judge all nodes; `seen` are those that have just answered. Also called by the API."""
        with self._lock:
            self._consider(seen)

    def _consider(self, seen: Sequence[Node]) -> None:
        now = self.clock.now()
        incidents = self.store.history.incidents(since=now - MEMORY_S)
        nodes = self.store.pool.nodes()
        if not incidents and not any(node.state == NodeState.EVICTED for node in nodes):
            self._evicted = {}
            return
        well = frozenset(
            node.id for node in seen if all(d.health != Health.SEPARATED for d in node.devices)
        )
        verdict = judge_nodes(nodes, incidents, well, now)
        for node_id, why in verdict.evict.items():
            self._evict(node_id, why, now)
        for node_id in verdict.release:
            self.store.pool.set_node(node_id, NodeState.READY)
            log.info("node.back", node=node_id)
        still_out = {n.id for n in nodes if n.state == NodeState.EVICTED} - set(verdict.release)
        reasons = {report.node: report.detail for report in incidents if report.code == EVICTED}
        self._evicted = {
            **{node_id: reasons.get(node_id, "it was evicted") for node_id in still_out},
            **verdict.evict,
        }

    def _evict(self, node: NodeId, why: str, now: float) -> None:
        self.store.pool.set_node(node, NodeState.EVICTED)
        report = FaultReport(
            sender="karez", node=node, code=EVICTED, level=Severity.MINOR, detail=why, at=now
        )
        self.store.history.add_incident(report)
        log.warning("node.evicted", node=node, why=why)
