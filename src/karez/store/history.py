"""Store of jobs' receipts, metrics, checkpoints, transitions and incidents."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from typing_extensions import override

from karez.core.codec import from_text, to_text
from karez.core.receipts import Receipt
from karez.core.recovery import CheckpointPart, FaultReport, Transition
from karez.core.stores.history import HistoryStore
from karez.core.usage import MetricRow
from karez.store import schema
from karez.store.database import Database

STEPS_SEARCHED = 50
"""Newest stored steps among which a step that a gang can load is searched."""


class History(HistoryStore):
    """History of jobs in SQL."""

    def __init__(self, db: Database) -> None:
        """Keep the history in an open database."""
        self._db = db

    @override
    def add_receipt(self, receipt: Receipt) -> None:
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

    @override
    def receipts(self, job: str) -> Sequence[Receipt]:
        table = schema.receipts
        query = select(table.c.body).order_by(table.c.detected_at)
        if job:
            query = query.where(table.c.job == job)
        with self._db.read() as tx:
            return [from_text(Receipt, body) for (body,) in tx.execute(query)]

    @override
    def receipts_since(self, at: float) -> Sequence[Receipt]:
        table = schema.receipts
        query = select(table.c.body).where(table.c.detected_at >= at)
        with self._db.read() as tx:
            rows = tx.execute(query.order_by(table.c.detected_at))
            return [from_text(Receipt, body) for (body,) in rows]

    @override
    def add_metrics(self, job: str, rows: Sequence[MetricRow]) -> None:
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

    @override
    def metrics(self, job: str, *, after: int = -1) -> Sequence[MetricRow]:
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

    @override
    def add_checkpoint(self, job: str, part: CheckpointPart) -> None:
        values = {"job": job, "step": part.step, "rank": part.rank, "digest": part.digest}
        more = {"world": part.world, "whole": int(part.whole)}
        self._db.once(schema.checkpoints, [{**values, **more}])

    @override
    def newest_checkpoint(
        self, job: str, seats: Sequence[int]
    ) -> Mapping[int, Sequence[CheckpointPart]]:
        table = schema.checkpoints
        newest = (
            select(table.c.step)
            .where(table.c.job == job)
            .distinct()
            .order_by(table.c.step.desc())
            .limit(STEPS_SEARCHED)
        )
        with self._db.read() as tx:
            steps = [int(step) for (step,) in tx.execute(newest)]
            for step in steps:
                rows = tx.execute(select(table).where(table.c.job == job, table.c.step == step))
                loadable = _loadable([_part(row) for row in rows], seats)
                if loadable:
                    return loadable
        return {}

    @override
    def add_transition(self, job: str, transition: Transition) -> None:
        with self._db.write() as tx:
            values = {"job": job, "at": transition.at, "body": to_text(transition)}
            tx.execute(schema.transitions.insert().values(**values))

    @override
    def transitions(self, job: str, *, newest: int = 1000) -> Sequence[Transition]:
        table = schema.transitions
        query = (
            select(table.c.body).where(table.c.job == job).order_by(table.c.id.desc()).limit(newest)
        )
        with self._db.read() as tx:
            return [from_text(Transition, body) for (body,) in tx.execute(query)][::-1]

    @override
    def add_incident(self, report: FaultReport) -> None:
        with self._db.write() as tx:
            values = {"node": report.node, "at": report.at, "body": to_text(report)}
            tx.execute(schema.incidents.insert().values(**values))

    @override
    def incidents(self, *, since: float, node: str = "") -> Sequence[FaultReport]:
        table = schema.incidents
        query = select(table.c.body).where(table.c.at > since).order_by(table.c.id)
        if node:
            query = query.where(table.c.node == node)
        with self._db.read() as tx:
            return [from_text(FaultReport, body) for (body,) in tx.execute(query)]


def _part(row: Any) -> CheckpointPart:
    return CheckpointPart(
        step=int(row.step),
        rank=int(row.rank),
        digest=row.digest,
        world=int(row.world),
        whole=bool(row.whole),
    )


def _loadable(
    parts: Sequence[CheckpointPart], ranks: Sequence[int]
) -> Mapping[int, Sequence[CheckpointPart]]:
    """Parts of one step that each rank loads; empty unless all ranks of its time stored the step.

    If the ranks differ from those that stored the shards, each rank gets all shards and reshards.
    """
    by_rank = {part.rank: part for part in parts}
    world = max(part.world for part in parts)
    whole = next((part for part in parts if part.whole), None)
    if len(parts) < (world or (1 if whole else len(ranks))):
        return {}
    if whole is None:
        if {part.world for part in parts} != {len(parts)}:
            return {}  # shards of several sizes, or not all of them
        if set(ranks) == set(by_rank):
            return {rank: [by_rank[rank]] for rank in ranks}
        return dict.fromkeys(ranks, sorted(parts, key=lambda part: part.rank))
    return {rank: list(dict.fromkeys([by_rank.get(rank, whole), whole])) for rank in ranks}
