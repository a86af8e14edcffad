"""Nodes, receipts, metrics, checkpoints and artifacts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Row, Table, delete, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from karez.core.artifacts import Artifact, ArtifactId, ArtifactKind, ArtifactSpec
from karez.core.codec import from_text, to_text
from karez.core.receipts import Receipt
from karez.core.resources import Node, NodeId, NodeState
from karez.core.usage import MetricRow
from karez.store import schema
from karez.store.database import Database


class RecordTable:
    """See core.ports.Store: pool, what happened, artifacts."""

    db: Database

    def see_nodes(self, nodes: Sequence[Node], *, now: float) -> None:
        """See Store."""
        table = schema.nodes
        with self.db.write() as tx:
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
        """See Store."""
        table = schema.nodes
        with self.db.write() as tx:
            done = tx.execute(update(table).where(table.c.id == node).values(state=state.value))
            return done.rowcount == 1

    def nodes(self) -> Sequence[Node]:
        """See Store."""
        with self.db.read() as tx:
            rows = tx.execute(select(schema.nodes).order_by(schema.nodes.c.id)).all()
        return [
            replace(from_text(Node, row.body), state=NodeState(row.state), seen_at=row.seen_at)
            for row in rows
        ]

    def add_receipt(self, receipt: Receipt) -> None:
        """See Store."""
        self._once(
            schema.receipts,
            [
                {
                    "id": receipt.id,
                    "job": receipt.job,
                    "detected_at": receipt.detected_at,
                    "body": to_text(receipt),
                }
            ],
        )

    def receipts(self, job: str) -> Sequence[Receipt]:
        """See Store."""
        table = schema.receipts
        query = select(table.c.body).where(table.c.job == job).order_by(table.c.detected_at)
        with self.db.read() as tx:
            return [from_text(Receipt, body) for (body,) in tx.execute(query)]

    def add_metrics(self, job: str, rows: Sequence[MetricRow]) -> None:
        """See Store."""
        if not rows:
            return
        table = schema.metrics
        newest = {(row.step, row.rank): row for row in rows}
        values = [
            {
                "job": job,
                "step": row.step,
                "rank": row.rank,
                "loss": row.loss,
                "at": row.at,
                "generation": row.generation,
            }
            for row in newest.values()
        ]
        query = self._into(table).values(values)
        query = query.on_conflict_do_update(
            index_elements=["job", "step", "rank"],
            set_={name: query.excluded[name] for name in ("loss", "at", "generation")},
            where=query.excluded.generation >= table.c.generation,
        )
        with self.db.write() as tx:
            tx.execute(query)

    def metrics(self, job: str, *, after: int = -1) -> Sequence[MetricRow]:
        """See Store."""
        table = schema.metrics
        query = (
            select(table)
            .where(table.c.job == job, table.c.step > after)
            .order_by(table.c.step, table.c.rank)
        )
        with self.db.read() as tx:
            return [
                MetricRow(
                    step=row.step,
                    rank=row.rank,
                    loss=row.loss,
                    at=row.at,
                    generation=row.generation,
                )
                for row in tx.execute(query)
            ]

    def add_checkpoint(self, job: str, step: int, rank: int, digest: str) -> None:
        """See Store."""
        self._once(schema.checkpoints, [{"job": job, "step": step, "rank": rank, "digest": digest}])

    def newest_checkpoint(self, job: str, world: int) -> Mapping[int, tuple[int, str]]:
        """See Store."""
        table = schema.checkpoints
        newest = (
            select(table.c.step)
            .where(table.c.job == job, table.c.rank < world)
            .group_by(table.c.step)
            .having(func.count() == world)
            .order_by(table.c.step.desc())
            .limit(1)
        )
        with self.db.read() as tx:
            step = tx.execute(newest).scalar()
            if step is None:
                return {}
            rows = tx.execute(select(table).where(table.c.job == job, table.c.step == step))
            return {row.rank: (int(step), row.digest) for row in rows if row.rank < world}

    def add_artifact(self, artifact: Artifact) -> Artifact:
        """See Store."""
        table = schema.artifacts
        with self.db.write() as tx:
            row = tx.execute(select(table).where(table.c.id == artifact.id)).first()
            if row is None:
                tx.execute(
                    insert(table).values(
                        id=artifact.id,
                        seq=self.db.next_number(tx, "artifacts"),
                        name=artifact.spec.name,
                        kind=artifact.spec.kind.value,
                        project=artifact.spec.project,
                        owner=artifact.owner,
                        created_at=artifact.created_at,
                        spec=to_text(artifact.spec),
                    )
                )
        return self.artifact(artifact.id) or artifact

    def artifact(self, ident: str) -> Artifact | None:
        """See Store."""
        table = schema.artifacts
        query = (
            select(table)
            .where(or_(table.c.id == ident, table.c.name == ident))
            .order_by((table.c.id == ident).desc(), table.c.seq.desc())
            .limit(1)
        )
        with self.db.read() as tx:
            row = tx.execute(query).first()
        return None if row is None else _artifact(row)

    def artifacts(
        self, *, projects: Sequence[str] | None, kinds: Sequence[ArtifactKind] = ()
    ) -> Sequence[Artifact]:
        """See Store."""
        table = schema.artifacts
        query = select(table).order_by(table.c.seq.desc())
        if projects is not None:
            query = query.where(table.c.project.in_(projects))
        if kinds:
            query = query.where(table.c.kind.in_([kind.value for kind in kinds]))
        with self.db.read() as tx:
            return [_artifact(row) for row in tx.execute(query)]

    def remove_artifact(self, ident: str) -> bool:
        """See Store."""
        with self.db.write() as tx:
            return (
                tx.execute(delete(schema.artifacts).where(schema.artifacts.c.id == ident)).rowcount
                == 1
            )

    def _into(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        return sqlite.insert(table) if self.db.sqlite else postgresql.insert(table)

    def _once(self, table: Table, values: list[dict[str, object]]) -> None:
        with self.db.write() as tx:
            tx.execute(self._into(table).values(values).on_conflict_do_nothing())


def _artifact(row: Row[Any]) -> Artifact:
    return Artifact(
        id=ArtifactId(row.id),
        spec=from_text(ArtifactSpec, row.spec),
        owner=row.owner,
        created_at=row.created_at,
    )
