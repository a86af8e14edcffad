"""SQL of leases: which control process acts on which workload, and until when."""

import secrets
from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, Connection, Update, and_, or_, select, update

from karez.core.workloads import State, WorkloadId
from karez.store.schema import workloads as table
from karez.store.workload_rows import ENDED_STATES

NO_LEASE: Mapping[str, None] = {"lease_owner": None, "lease_token": None, "lease_until": None}
"""Column values of a workload whose lease is free."""


def claimable(states: Sequence[State], now: float) -> ColumnElement[bool]:
    """Condition: a job or replica is in one of these states and its lease is free."""
    return and_(
        table.c.kind != "service",
        table.c.state.in_([state.value for state in states]),
        or_(table.c.lease_until.is_(None), table.c.lease_until < now),
    )


def claim(
    tx: Connection, claimable: ColumnElement[bool], owner: str, until: float
) -> list[tuple[WorkloadId, str]]:
    """Lease every claimable workload that no other transaction locks: (id, token) pairs."""
    query = select(table.c.id).where(claimable).order_by(table.c.seq)
    claimed: list[tuple[WorkloadId, str]] = []
    for (ident,) in tx.execute(query.with_for_update(skip_locked=True)).all():
        token = secrets.token_hex(8)
        tx.execute(
            update(table)
            .where(table.c.id == ident)
            .values(lease_owner=owner, lease_token=token, lease_until=until)
        )
        claimed.append((WorkloadId(ident), token))
    return claimed


def under_lease(ident: WorkloadId, token: str) -> Update:
    """UPDATE of a workload that has not ended, while this token's lease holds."""
    return update(table).where(
        table.c.id == ident, table.c.lease_token == token, table.c.state.not_in(ENDED_STATES)
    )
