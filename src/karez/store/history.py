"""Receipts, metrics and checkpoints of jobs."""

from collections.abc import Mapping, Sequence

from sqlalchemy import func, select

from karez.core.codec import from_text, to_text
from karez.core.receipts import Receipt
from karez.core.usage import MetricRow
from karez.store import schema
from karez.store.database import Database


class History:
    """See core.stores.HistoryStore."""

    def __init__(self, db: Database) -> None:
        """Over an open database."""
        self._db = db

    def add_receipt(self, receipt: Receipt) -> None:
        """See the contract."""
        self._db.once(
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
        """See the contract."""
        table = schema.receipts
        query = select(table.c.body).where(table.c.job == job).order_by(table.c.detected_at)
        with self._db.read() as tx:
            return [from_text(Receipt, body) for (body,) in tx.execute(query)]

    def add_metrics(self, job: str, rows: Sequence[MetricRow]) -> None:
        """See the contract."""
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
        query = self._db.into(table).values(values)
        query = query.on_conflict_do_update(
            index_elements=["job", "step", "rank"],
            set_={name: query.excluded[name] for name in ("loss", "at", "generation")},
            where=query.excluded.generation >= table.c.generation,
        )
        with self._db.write() as tx:
            tx.execute(query)

    def metrics(self, job: str, *, after: int = -1) -> Sequence[MetricRow]:
        """See the contract."""
        table = schema.metrics
        query = (
            select(table)
            .where(table.c.job == job, table.c.step > after)
            .order_by(table.c.step, table.c.rank)
        )
        with self._db.read() as tx:
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
        """See the contract."""
        self._db.once(
            schema.checkpoints, [{"job": job, "step": step, "rank": rank, "digest": digest}]
        )

    def newest_checkpoint(self, job: str, world: int) -> Mapping[int, tuple[int, str]]:
        """See the contract."""
        table = schema.checkpoints
        newest = (
            select(table.c.step)
            .where(table.c.job == job, table.c.rank < world)
            .group_by(table.c.step)
            .having(func.count() == world)
            .order_by(table.c.step.desc())
            .limit(1)
        )
        with self._db.read() as tx:
            step = tx.execute(newest).scalar()
            if step is None:
                return {}
            rows = tx.execute(select(table).where(table.c.job == job, table.c.step == step))
            return {row.rank: (int(step), row.digest) for row in rows if row.rank < world}
