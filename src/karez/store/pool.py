"""The nodes ever seen."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import insert, select, update

from karez.core.codec import from_text, to_text
from karez.core.resources import Node, NodeId, NodeState
from karez.store import schema
from karez.store.database import Database


class Pool:
    """See core.stores.NodeStore."""

    def __init__(self, db: Database) -> None:
        """Over an open database."""
        self._db = db

    def see_nodes(self, nodes: Sequence[Node], *, now: float) -> None:
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

    def nodes(self) -> Sequence[Node]:
        """See the contract."""
        with self._db.read() as tx:
            rows = tx.execute(select(schema.nodes).order_by(schema.nodes.c.id)).all()
        return [
            replace(from_text(Node, row.body), state=NodeState(row.state), seen_at=row.seen_at)
            for row in rows
        ]
