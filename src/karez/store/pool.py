"""The nodes ever seen."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import delete, insert, select, update

from karez.core.codec import from_text, to_text
from karez.core.resources import MaintenanceWindow, Node, NodeId, NodeOverride, NodeState
from karez.store import schema
from karez.store.database import Database

MOST_KEPT = 20_000
"""Nodes whose text is remembered as read: more than the largest pool has."""


class Nodes:
    """See core.stores.NodeStore."""

    def __init__(self, db: Database) -> None:
        """Over an open database."""
        self._db = db
        self._read: dict[str, Node] = {}

    def record_nodes(self, nodes: Sequence[Node], *, now: float) -> None:
        """See the contract."""
        table = schema.nodes
        with self._db.write() as tx:
            known = {row.id: row.state for row in tx.execute(select(table.c.id, table.c.state))}
            for node in nodes:
                state = known.get(node.id, NodeState.READY.value)
                if state == NodeState.LOST.value:
                    state = NodeState.READY.value
                values = {"state": state, "seen_at": now, "body": to_text(node)}
                if node.id in known:
                    tx.execute(update(table).where(table.c.id == node.id).values(**values))
                else:
                    tx.execute(insert(table).values(id=node.id, **values))

    def set_node(self, node: NodeId, state: NodeState) -> bool:
        """See the contract."""
        table = schema.nodes
        with self._db.write() as tx:
            done = tx.execute(update(table).where(table.c.id == node).values(state=state.value))
            return done.rowcount == 1

    def set_windows(self, node: NodeId, windows: Sequence[MaintenanceWindow]) -> bool:
        """See the contract."""
        table = schema.windows
        with self._db.write() as tx:
            known = tx.execute(select(schema.nodes.c.id).where(schema.nodes.c.id == node)).first()
            if known is None:
                return False
            tx.execute(delete(table).where(table.c.node == node))
            for window in windows:
                tx.execute(
                    insert(table).values(
                        node=node,
                        starts_at=window.starts_at,
                        ends_at=window.ends_at,
                        reason=window.reason,
                    )
                )
        return True

    def set_override(self, node: NodeId, mark: NodeOverride) -> bool:
        """See the contract."""
        table = schema.marks
        query = self._db.into(table).values(node=node, body=to_text(mark))
        query = query.on_conflict_do_update(
            index_elements=["node"], set_={"body": query.excluded.body}
        )
        with self._db.write() as tx:
            known = tx.execute(select(schema.nodes.c.id).where(schema.nodes.c.id == node)).first()
            if known is not None:
                tx.execute(query)
            return known is not None

    def overrides(self) -> Mapping[NodeId, NodeOverride]:
        """See the contract."""
        with self._db.read() as tx:
            rows = tx.execute(select(schema.marks)).all()
        return {NodeId(row.node): from_text(NodeOverride, row.body) for row in rows}

    def nodes(self) -> Sequence[Node]:
        """See the contract."""
        table, marks = schema.windows, self.overrides()
        with self._db.read() as tx:
            rows = tx.execute(select(schema.nodes).order_by(schema.nodes.c.id)).all()
            planned = tx.execute(select(table).order_by(table.c.node, table.c.starts_at)).all()
        windows: dict[str, tuple[MaintenanceWindow, ...]] = {}
        for row in planned:
            window = MaintenanceWindow(
                starts_at=row.starts_at, ends_at=row.ends_at, reason=row.reason
            )
            windows[row.node] = (*windows.get(row.node, ()), window)
        return [
            replace(
                self._node(row.body, marks.get(NodeId(row.id))),
                state=NodeState(row.state),
                seen_at=row.seen_at,
                windows=windows.get(row.id, ()),
            )
            for row in rows
        ]

    def _node(self, body: str, mark: NodeOverride | None) -> Node:
        """Read once: what a node says of itself rarely changes."""
        if body not in self._read:
            if len(self._read) > MOST_KEPT:
                self._read.clear()
            self._read[body] = from_text(Node, body)
        node = self._read[body]
        return node if mark is None else mark.on(node)
