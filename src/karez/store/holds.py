"""SQL of what workloads held when, for the settlement between training and serving."""

from collections.abc import Sequence

from sqlalchemy import Connection, or_, select

from karez.core.codec import from_text
from karez.core.settlement import HANDOVER_S, Hold
from karez.store import schema
from karez.store.allocations import Grants

_SERVING = ("service", "replica")


def holds_between(tx: Connection, since: float, until: float, limit: int) -> Sequence[Hold]:
    """What was held between two instants, and up to HANDOVER_S before; `limit` at most."""
    held, work = schema.allocations, schema.workloads
    names = ("workload", "grants", "since", "until")
    columns = [held.c[name] for name in names]
    of = [work.c[name] for name in ("name", "project", "kind", "created_at", "ended_at")]
    query = select(*columns, *of).join(work, work.c.id == held.c.workload)
    query = query.where(
        held.c.since < until, or_(held.c.until.is_(None), held.c.until > since - HANDOVER_S)
    )
    rows = tx.execute(query.order_by(held.c.since).limit(limit))
    return [
        Hold(
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
            asked_at=row.created_at,
            ended_at=row.ended_at,
        )
        for row in rows
    ]
