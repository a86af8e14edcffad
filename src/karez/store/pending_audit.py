"""The audit row of the request under way: it is committed with the first change that is made.

So no change is kept without its row, whatever becomes of the process before the request is
answered.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from sqlalchemy import Connection, insert

from karez.core.usage import AuditRow
from karez.store.schema import audit

BEGUN = "begun"
"""Outcome of a row whose request was not answered, as far as is known."""


@dataclass(slots=True)
class PendingAudit:
    """The row of one request, which may have been written already."""

    row: Callable[[], AuditRow | None]
    """What is known of the request by now; None: it needs no row."""
    id: int | None = None


_PENDING: ContextVar[PendingAudit | None] = ContextVar("pending_audit", default=None)


@contextmanager
def pending_audit(pending: PendingAudit) -> Iterator[None]:
    """Have the first change that is made within committed together with this row."""
    token = _PENDING.set(pending)
    try:
        yield
    finally:
        _PENDING.reset(token)


def write_pending(tx: Connection) -> Callable[[], None]:
    """Write the pending row in a transaction; what is returned is to be called once it is kept."""
    pending = _PENDING.get()
    row = pending.row() if pending is not None and pending.id is None else None
    if pending is None or row is None:
        return lambda: None
    ident = write_row(tx, row, BEGUN)
    return lambda: setattr(pending, "id", ident)


def write_row(tx: Connection, row: AuditRow, outcome: str) -> int:
    """Insert a row; returns its id."""
    values = {
        "at": row.at,
        "actor": row.actor,
        "action": row.action,
        "subject": row.subject,
        "outcome": outcome,
        "detail": row.detail,
    }
    return int(tx.execute(insert(audit).values(**values).returning(audit.c.id)).scalar_one())
