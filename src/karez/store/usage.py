"""Calls, usage and the audit log."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, insert, select

from karez.core.codec import from_text
from karez.core.resources import Grant
from karez.core.usage import AuditRow, Call, UsageRow
from karez.store import schema
from karez.store.database import Database


class Usage:
    """See core.stores.BookStore."""

    def __init__(self, db: Database) -> None:
        """Over an open database."""
        self._db = db

    def add_calls(self, calls: Sequence[Call]) -> None:
        """See the contract."""
        if not calls:
            return
        names = [column.name for column in schema.calls.columns]
        self._db.once(
            schema.calls, [{name: getattr(call, name) for name in names} for call in calls]
        )

    def summary(self, *, projects: Sequence[str] | None, now: float) -> Sequence[UsageRow]:
        """See the contract."""
        calls, held, work = schema.calls, schema.allocations, schema.workloads
        tokens = select(
            calls.c.project,
            calls.c.service,
            func.count(),
            func.sum(calls.c.prompt_tokens),
            func.sum(calls.c.completion_tokens),
        ).group_by(calls.c.project, calls.c.service)
        grants = select(
            work.c.project, work.c.name, work.c.kind, held.c.grants, held.c.since, held.c.until
        ).join(work, work.c.id == held.c.workload)
        if projects is not None:
            tokens = tokens.where(calls.c.project.in_(projects))
            grants = grants.where(work.c.project.in_(projects))
        with self._db.read() as tx:
            token_rows = tx.execute(tokens).all()
            grant_rows = tx.execute(grants).all()
        rows = [
            UsageRow(
                project=project,
                what=service,
                kind="tokens",
                requests=count,
                prompt_tokens=int(prompt),
                completion_tokens=int(completion),
            )
            for project, service, count, prompt, completion in token_rows
        ]
        return rows + _device_rows(grant_rows, now)

    def held(self, since: float) -> Sequence[tuple[str, tuple[Grant, ...], float, float | None]]:
        """See the contract."""
        held, work = schema.allocations, schema.workloads
        query = (
            select(work.c.project, held.c.grants, held.c.since, held.c.until)
            .join(work, work.c.id == held.c.workload)
            .where((held.c.until.is_(None)) | (held.c.until > since))
        )
        with self._db.read() as tx:
            rows = tx.execute(query).all()
        return [
            (project, from_text(tuple[Grant, ...], grants), begun, until)
            for project, grants, begun, until in rows
        ]

    def add_audit(self, row: AuditRow) -> None:
        """See the contract."""
        with self._db.write() as tx:
            tx.execute(
                insert(schema.audit).values(
                    at=row.at,
                    actor=row.actor,
                    action=row.action,
                    subject=row.subject[:200],
                    outcome=row.outcome,
                    detail=row.detail,
                )
            )

    def audit(self, *, limit: int = 100) -> Sequence[AuditRow]:
        """See the contract."""
        table = schema.audit
        with self._db.read() as tx:
            rows = tx.execute(select(table).order_by(table.c.id.desc()).limit(limit)).all()
        return [
            AuditRow(
                id=row.id,
                at=row.at,
                actor=row.actor,
                action=row.action,
                subject=row.subject,
                outcome=row.outcome,
                detail=row.detail,
            )
            for row in rows
        ]


def _device_rows(rows: Sequence[Any], now: float) -> list[UsageRow]:
    seconds: dict[tuple[str, str, str, str], float] = {}
    for project, name, kind, grants, since, until in rows:
        for grant in from_text(tuple[Grant, ...], grants):
            key = (project, name, kind, grant.kind.value)
            span_s = max(0.0, (now if until is None else until) - since)
            amount = grant.milli or grant.dpu_milli
            if amount:
                seconds[key] = seconds.get(key, 0.0) + span_s * amount / 1000
    return [
        UsageRow(project=project, what=name, kind=kind, device_seconds=total, device_kind=device)
        for (project, name, kind, device), total in seconds.items()
    ]
