"""Store of calls, usage and the audit log."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Select, func, select, update
from typing_extensions import override

from karez.core.codec import from_text
from karez.core.stores.usage import UsageStore
from karez.core.usage import AuditRow, Call, UsageRow
from karez.store import schema
from karez.store.allocations import Grants
from karez.store.database import Database
from karez.store.pending_audit import PendingAudit, pending_audit, write_row


class Usage(UsageStore):
    """Calls, usage and the audit log in SQL."""

    def __init__(self, db: Database) -> None:
        """Keep usage in an open database."""
        self._db = db

    @override
    def add_calls(self, calls: Sequence[Call]) -> None:
        if not calls:
            return
        names = [column.name for column in schema.calls.columns]
        self._db.once(
            schema.calls, [{name: getattr(call, name) for name in names} for call in calls]
        )

    @override
    def summary(self, *, projects: Sequence[str] | None, now: float) -> Sequence[UsageRow]:
        tokens, grants = _select_tokens(), _select_grants()
        if projects is not None:
            tokens = tokens.where(schema.calls.c.project.in_(projects))
            grants = grants.where(schema.workloads.c.project.in_(projects))
        with self._db.read() as tx:
            token_rows = tx.execute(tokens).all()
            grant_rows = tx.execute(grants).all()
        return [*_token_rows(token_rows), *_device_rows(grant_rows, now)]

    @override
    def held(self, since: float) -> Sequence[tuple[str, Grants, float, float | None]]:
        held, work = schema.allocations, schema.workloads
        query = (
            select(work.c.project, held.c.grants, held.c.since, held.c.until)
            .join(work, work.c.id == held.c.workload)
            .where((held.c.until.is_(None)) | (held.c.until > since))
        )
        with self._db.read() as tx:
            rows = tx.execute(query).all()
        return [
            (project, from_text(Grants, grants), begun, until)
            for project, grants, begun, until in rows
        ]

    @override
    @contextmanager
    def auditing(self, row: Callable[[], AuditRow | None]) -> Iterator[None]:
        pending = PendingAudit(row)
        try:
            with pending_audit(pending):
                yield
        finally:
            last = row()
            if last is not None:
                self._finish(pending.id, last)

    def _finish(self, ident: int | None, row: AuditRow) -> None:
        with self._db.write() as tx:
            if ident is None:
                write_row(tx, row, row.outcome)
            else:
                own = update(schema.audit).where(schema.audit.c.id == ident)
                tx.execute(own.values(outcome=row.outcome, detail=row.detail))

    @override
    def audit(self, *, limit: int = 100) -> Sequence[AuditRow]:
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


def _select_tokens() -> Select[Any]:
    """SELECT of the calls of each project and service: their number and tokens."""
    calls = schema.calls
    return select(
        calls.c.project,
        calls.c.service,
        func.count(),
        func.sum(calls.c.prompt_tokens),
        func.sum(calls.c.completion_tokens),
    ).group_by(calls.c.project, calls.c.service)


def _select_grants() -> Select[Any]:
    """SELECT of all grants ever held, with their workloads."""
    held, work = schema.allocations, schema.workloads
    return select(
        work.c.project, work.c.name, work.c.kind, held.c.grants, held.c.since, held.c.until
    ).join(work, work.c.id == held.c.workload)


def _token_rows(rows: Sequence[Any]) -> list[UsageRow]:
    return [
        UsageRow(
            project=project,
            what=service,
            kind="tokens",
            requests=count,
            prompt_tokens=int(prompt),
            completion_tokens=int(completion),
        )
        for project, service, count, prompt, completion in rows
    ]


def _device_rows(rows: Sequence[Any], now: float) -> list[UsageRow]:
    seconds: dict[tuple[str, str, str, str], float] = {}
    for project, name, kind, grants, since, until in rows:
        for grant in from_text(Grants, grants):
            key = (project, name, "service" if kind == "replica" else kind, grant.device_name)
            span_s = max(0.0, (now if until is None else until) - since)
            amount = grant.milli or grant.dpu_milli
            if amount:
                seconds[key] = seconds.get(key, 0.0) + span_s * amount / 1000
    return [
        UsageRow(project=project, what=name, kind=kind, device_seconds=total, device_kind=device)
        for (project, name, kind, device), total in seconds.items()
    ]
