"""SQL of what workloads held when, for the settlement between training and serving."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from karez.core.codec import from_text
from karez.core.settlement import HANDOVER_S, Hold
from karez.store import schema
from karez.store.allocations import Grants

_SERVING = ("service", "replica")
_AT_ONCE = 200
"""Intervals of one query."""


def holds_between(tx: Connection, since: float, until: float, limit: int) -> Sequence[Hold]:
    """What was held between two instants, and what ended shortly before; `limit` at most.

    That is up to HANDOVER_S before one of the former began.
    """
    held = schema.allocations.c
    overlaps = and_(held.since < until, or_(held.until.is_(None), held.until > since))
    rows = {(row.workload, row.epoch): row for row in _rows(tx, overlaps, limit)}
    begun = [row.since for row in rows.values()]
    spans = list(_merged(begun))
    for at in range(0, len(spans), _AT_ONCE):
        if len(rows) >= limit:
            break
        ended = or_(*(held.until.between(*span) for span in spans[at : at + _AT_ONCE]))
        found = _rows(tx, and_(ended, held.until <= since), limit - len(rows))
        rows |= {(row.workload, row.epoch): row for row in found}
    return [_hold(row) for row in rows.values()]


def _merged(begun: Sequence[float]) -> Iterator[tuple[float, float]]:
    """The times of up to HANDOVER_S before any of these instants."""
    first = last = None
    for at in sorted(set(begun)):
        if first is not None and last is not None and at - HANDOVER_S > last:
            yield first, last
            first = None
        first, last = (at - HANDOVER_S if first is None else first), at
    if first is not None and last is not None:
        yield first, last


def _rows(tx: Connection, which: ColumnElement[bool], limit: int) -> Sequence[Any]:
    held, work = schema.allocations, schema.workloads
    columns = [held.c[name] for name in ("workload", "epoch", "grants", "since", "until")]
    of = [work.c[name] for name in ("name", "project", "kind", "created_at", "ended_at")]
    query = select(*columns, *of).join(work, work.c.id == held.c.workload).where(which)
    return tx.execute(query.order_by(held.c.since).limit(limit)).all()


def _hold(row: Any) -> Hold:
    return Hold(
        workload=row.workload,
        name=row.name,
        project=row.project,
        is_service=row.kind in _SERVING,
        devices=tuple(
            (grant.node, grant.kind, index, milli)
            for grant in from_text(Grants, row.grants)
            for index, milli in grant.devices
        ),
        since=row.since,
        until=row.until,
        asked_at=row.created_at if row.epoch == 1 else None,
        ended_at=row.ended_at,
    )
