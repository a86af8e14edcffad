"""Evicts nodes that fail again and again, and takes them back once they have rested."""

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
"""How far back evictions and reports are remembered."""


@dataclass(slots=True, kw_only=True)
class NodeEviction:
    """The one who looks at incidents; foremen ask it which nodes to leave."""

    store: Store
    clock: Clock
    _out: Mapping[NodeId, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def nodes_to_avoid(self) -> Mapping[NodeId, str]:
        """Nodes that are not trusted any more -> why."""
        return self._out

    def evaluate(self, seen: Sequence[Node]) -> None:
        """Judge all nodes anew, given those that have just answered. Also called by the API."""
        with self._lock:
            self._consider(seen)

    def _consider(self, seen: Sequence[Node]) -> None:
        now = self.clock.now()
        incidents = self.store.history.incidents(since=now - MEMORY_S)
        nodes = self.store.pool.nodes()
        if not incidents and not any(node.state == NodeState.EVICTED for node in nodes):
            self._out = {}
            return
        well = frozenset(
            node.id for node in seen if all(d.health != Health.SEPARATED for d in node.devices)
        )
        found = judge_nodes(nodes, incidents, well, now)
        for node, why in found.evict.items():
            self.store.pool.set_node(node, NodeState.EVICTED)
            self.store.history.add_incident(
                FaultReport(
                    sender="karez",
                    node=node,
                    code=EVICTED,
                    level=Severity.MINOR,
                    detail=why,
                    at=now,
                )
            )
            log.warning("node.evicted", node=node, why=why)
        for node in found.release:
            self.store.pool.set_node(node, NodeState.READY)
            log.info("node.back", node=node)
        out = {n.id for n in nodes if n.state == NodeState.EVICTED} - set(found.release)
        told = {r.node: r.detail for r in incidents if r.code == EVICTED}
        self._out = {
            **{node: told.get(node, "it was evicted") for node in out},
            **found.evict,
        }
