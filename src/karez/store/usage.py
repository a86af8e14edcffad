"""Store of calls, usage and the audit log."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Select, delete, func, select, update
from typing_extensions import override

from karez.core.codec import from_text
from karez.core.device_prices import DevicePrice
from karez.core.grants import device_name
from karez.core.ledger import LedgerLine
from karez.core.prices import Price
from karez.core.settlement import Hold
from karez.core.stores.usage import UsageStore
from karez.core.usage import AuditRow, Call, MinuteUsage, UsageRow
from karez.store import device_billing, ledger, schema
from karez.store.allocations import Grants
from karez.store.database import Database
from karez.store.holds import holds_between
from karez.store.pending_audit import PendingAudit, pending_audit, write_row


class Usage(UsageStore):
    """Calls, usage and the audit log in SQL."""

    def __init__(self, db: Database) -> None:
        """Keep usage in an open database."""
        self._db = db

    @override
    def add_calls(self, calls: Sequence[Call]) -> None:
        if calls:
            ledger.add_calls(self._db, calls)

    @override
    def ledger(self, project: str, *, after: int, limit: int) -> Sequence[LedgerLine]:
        with self._db.read() as tx:
            return ledger.lines_of(tx, project, after, limit)

    @override
    def minutes(
        self, *, projects: Sequence[str] | None, since: float, until: float, limit: int
    ) -> Sequence[MinuteUsage]:
        with self._db.read() as tx:
            return ledger.minutes(tx, projects, since, until, limit)

    @override
    def holds(self, *, since: float, until: float, limit: int) -> Sequence[Hold]:
        with self._db.read() as tx:
            return holds_between(tx, since, until, limit)

    @override
    def spend(self, now: float) -> Mapping[str, int]:
        with self._db.read() as tx:
            return device_billing.spend_until(tx, now)

    @override
    def bill_devices(self, now: float) -> None:
        device_billing.bill_devices(self._db, now)

    @override
    def device_prices(self) -> Sequence[DevicePrice]:
        with self._db.read() as tx:
            return device_billing.device_prices(tx)

    @override
    def put_device_price(self, price: DevicePrice, *, now: float) -> None:
        device_billing.put_device_price(self._db, price, now)

    @override
    def drop_device_price(self, device: str, *, now: float) -> bool:
        return device_billing.drop_device_price(self._db, device, now)

    @override
    def prices(self) -> Sequence[Price]:
        with self._db.read() as tx:
            return ledger.all_prices(tx)

    @override
    def put_price(self, price: Price) -> None:
        ledger.put_price(self._db, price)

    @override
    def drop_price(self, model: str) -> bool:
        with self._db.write() as tx:
            gone = delete(schema.prices).where(schema.prices.c.model == model)
            return tx.execute(gone).rowcount == 1

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
        func.sum(calls.c.cached_tokens),
        func.sum(calls.c.cost_nano),
    ).group_by(calls.c.project, calls.c.service)


def _select_grants() -> Select[Any]:
    """SELECT of all grants ever held, with their workloads."""
    held, work = schema.allocations, schema.workloads
    return select(
        work.c.project,
        work.c.name,
        work.c.kind,
        *(held.c[name] for name in ("grants", "since", "until", "costs")),
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
            cached_tokens=int(cached),
            cost_nano=int(cost),
        )
        for project, service, count, prompt, completion, cached, cost in rows
    ]


def _device_rows(rows: Sequence[Any], now: float) -> list[UsageRow]:
    seconds: dict[tuple[str, str, str, str], float] = {}
    costs: dict[tuple[str, str, str, str], int] = {}
    for project, name, kind, grants, since, until, billed in rows:
        what = (project, name, "service" if kind == "replica" else kind)
        span_s = max(0.0, (now if until is None else until) - since)
        for grant in from_text(Grants, grants):
            amount = grant.milli or grant.dpu_milli
            if amount:
                key = (*what, grant.device_name)
                seconds[key] = seconds.get(key, 0.0) + span_s * amount / 1000
        for device, nano in json.loads(billed or "{}").items():
            device_kind, _, model = device.partition(":")
            key = (*what, device_name(device_kind, model))
            costs[key] = costs.get(key, 0) + nano
    return [
        UsageRow(
            project=project,
            what=name,
            kind=kind,
            device_seconds=seconds.get((project, name, kind, device), 0.0),
            device_kind=device,
            cost_nano=costs.get((project, name, kind, device), 0),
        )
        for project, name, kind, device in dict.fromkeys([*seconds, *costs])
    ]
