"""SQL of allocations: which grants a workload holds, and since when."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, insert, select, update

from karez.core.codec import from_text, to_text
from karez.core.grants import Grant
from karez.core.traces import HeldDevices
from karez.core.workloads import Allocation, WorkloadId
from karez.store.schema import allocations as table

Grants = tuple[Grant, ...]


def grants_text(grants: Sequence[Grant]) -> str:
    """JSON text of grants."""
    return "[" + ",".join(to_text(grant) for grant in grants) + "]"


def allocate(
    tx: Connection, ident: WorkloadId, epoch: int, grants: Sequence[Grant], now: float
) -> None:
    """Record the grants that a workload holds from now on."""
    body = grants_text(grants)
    row = {"workload": ident, "epoch": epoch, "grants": body, "since": now}
    tx.execute(insert(table).values(**row, unbilled_since=now))


def free(tx: Connection, ident: WorkloadId, now: float) -> None:
    """Record that a workload holds its grants no longer."""
    tx.execute(
        update(table).where(table.c.workload == ident, table.c.until.is_(None)).values(until=now)
    )


def history(tx: Connection, ident: WorkloadId) -> Sequence[HeldDevices]:
    """Read all allocations that a workload has and had, oldest first."""
    query = select(table).where(table.c.workload == ident).order_by(table.c.epoch)
    held = []
    for row in tx.execute(query):
        grants = from_text(Grants, row.grants)
        held.append(
            HeldDevices(
                epoch=row.epoch,
                nodes=tuple(dict.fromkeys(grant.node for grant in grants)),
                devices=sum(len(grant.devices) for grant in grants),
                since=row.since,
                until=row.until,
            )
        )
    return held


def current(tx: Connection) -> Mapping[WorkloadId, Allocation]:
    """Read the current allocation of each workload that holds grants."""
    rows = tx.execute(select(table).where(table.c.until.is_(None))).all()
    return {
        WorkloadId(row.workload): Allocation(
            workload=WorkloadId(row.workload),
            epoch=row.epoch,
            grants=from_text(Grants, row.grants),
            since=row.since,
        )
        for row in rows
    }
