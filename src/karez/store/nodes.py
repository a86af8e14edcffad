"""Store of nodes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update
from typing_extensions import override

from karez.core.codec import to_text
from karez.core.nodes import MaintenanceWindow, Node, NodeId, NodeOverride, NodeState
from karez.core.stores.nodes import NodeStore
from karez.store import schema
from karez.store.database import Database
from karez.store.readable import read_one

CACHE_LIMIT = 20_000
"""Parsed nodes in the cache: more than the largest pool has."""


_DEGRADED = NodeState.DEGRADED.value
_BY_ITSELF = (NodeState.READY.value, NodeState.LOST.value, _DEGRADED)
"""States that follow from what a node reports; the others are chosen for it."""


class Nodes(NodeStore):
    """Nodes in SQL, each as the JSON text that it reported."""

    def __init__(self, db: Database) -> None:
        """Keep nodes in an open database."""
        self._db = db
        self._parsed: dict[str, Node] = {}

    @override
    def record_nodes(self, nodes: Sequence[Node], *, now: float) -> None:
        table = schema.nodes
        with self._db.write() as tx:
            states = {row.id: row.state for row in tx.execute(select(table.c.id, table.c.state))}
            for node in nodes:
                state = states.get(node.id, NodeState.READY.value)
                if state in _BY_ITSELF:
                    state = _DEGRADED if node.problems else NodeState.READY.value
                values = {"state": state, "seen_at": now, "body": to_text(node)}
                if node.id in states:
                    tx.execute(update(table).where(table.c.id == node.id).values(**values))
                else:
                    tx.execute(insert(table).values(id=node.id, **values))

    @override
    def set_node(self, node: NodeId, state: NodeState) -> bool:
        table = schema.nodes
        with self._db.write() as tx:
            done = tx.execute(update(table).where(table.c.id == node).values(state=state.value))
            return done.rowcount == 1

    @override
    def lost(self) -> Mapping[NodeId, float]:
        table = schema.nodes
        query = select(table.c.id, table.c.seen_at).where(table.c.state == NodeState.LOST.value)
        with self._db.read() as tx:
            return {NodeId(ident): seen_at for ident, seen_at in tx.execute(query)}

    @override
    def set_windows(self, node: NodeId, windows: Sequence[MaintenanceWindow]) -> bool:
        table = schema.windows
        with self._db.write() as tx:
            if not _is_recorded(tx, node):
                return False
            tx.execute(delete(table).where(table.c.node == node))
            for window in windows:
                tx.execute(insert(table).values(node=node, **asdict(window)))
        return True

    @override
    def set_override(self, node: NodeId, mark: NodeOverride) -> bool:
        query = self._db.into(schema.marks).values(node=node, body=to_text(mark))
        query = query.on_conflict_do_update(
            index_elements=["node"], set_={"body": query.excluded.body}
        )
        with self._db.write() as tx:
            recorded = _is_recorded(tx, node)
            if recorded:
                tx.execute(query)
            return recorded

    @override
    def overrides(self) -> Mapping[NodeId, NodeOverride]:
        with self._db.read() as tx:
            rows = tx.execute(select(schema.marks)).all()
        found = {row.node: read_one(NodeOverride, row.node, row.body) for row in rows}
        return {NodeId(node): mark for node, mark in found.items() if mark is not None}

    @override
    def nodes(self, only: Collection[NodeId] | None = None) -> Sequence[Node]:
        overrides = self.overrides()
        query = select(schema.nodes).order_by(schema.nodes.c.id)
        if only is not None:
            query = query.where(schema.nodes.c.id.in_(sorted(only)))
        with self._db.read() as tx:
            rows = tx.execute(query).all()
            windows = _windows(tx)
        return [
            replace(
                node,
                state=NodeState(row.state),
                seen_at=row.seen_at,
                windows=tuple(windows.get(row.id, ())),
            )
            for row in rows
            if (node := self._node(row, overrides.get(NodeId(row.id)))) is not None
        ]

    def _node(self, row: Row[Any], mark: NodeOverride | None) -> Node | None:
        """Parse a node, or take it from the cache: a node's own report rarely changes."""
        body = row.body
        if body not in self._parsed:
            if len(self._parsed) > CACHE_LIMIT:
                self._parsed.clear()
            parsed = read_one(Node, row.id, body)
            if parsed is None:
                return None
            self._parsed[body] = parsed
        node = self._parsed[body]
        return node if mark is None else mark.on(node)


def _is_recorded(tx: Connection, node: NodeId) -> bool:
    query = select(schema.nodes.c.id).where(schema.nodes.c.id == node)
    return tx.execute(query).first() is not None


def _windows(tx: Connection) -> Mapping[str, list[MaintenanceWindow]]:
    table = schema.windows
    windows: dict[str, list[MaintenanceWindow]] = {}
    for row in tx.execute(select(table).order_by(table.c.node, table.c.starts_at)).all():
        window = MaintenanceWindow(starts_at=row.starts_at, ends_at=row.ends_at, reason=row.reason)
        windows.setdefault(row.node, []).append(window)
    return windows
