"""Replicas are workloads of their own: what a service held as one is given back.

Control makes the replicas of each live service anew, and the processes of before are orphans.
"""

import sqlalchemy as sa
from alembic import op

from karez.store.schema import allocations, workloads

revision = "0010"
down_revision = "0009"
_NOW = {
    "sqlite": "SELECT CAST(strftime('%s', 'now') AS REAL)",
    "postgresql": "SELECT CAST(extract(epoch FROM now()) AS DOUBLE PRECISION)",
}


def upgrade() -> None:
    """Queue the services that hold devices, without these."""
    bind = op.get_bind()
    inspector = sa.inspect(bind)
    if "updated_at" not in {column["name"] for column in inspector.get_columns("workloads")}:
        op.add_column("workloads", sa.Column("updated_at", sa.Float()))
    if "ix_workloads_kind" not in {index["name"] for index in inspector.get_indexes("workloads")}:
        op.create_index("ix_workloads_kind", "workloads", ["kind", "state"])
    now = bind.execute(sa.text(_NOW[bind.dialect.name])).scalar_one()
    services = sa.select(workloads.c.id).where(workloads.c.kind == "service")
    held = allocations.update().where(
        allocations.c.until.is_(None), allocations.c.workload.in_(services)
    )
    bind.execute(held.values(until=now))
    active = workloads.update().where(
        workloads.c.kind == "service",
        workloads.c.state.in_(["placed", "starting", "running", "recovering", "preempting"]),
    )
    free = {"lease_owner": None, "lease_token": None, "lease_until": None}
    bind.execute(active.values(state="queued", **free))


def downgrade() -> None:
    """End the replicas; a service that is queued is placed as one again."""
    bind = op.get_bind()
    bind.execute(
        workloads.update()
        .where(workloads.c.kind == "replica", workloads.c.ended_at.is_(None))
        .values(state="cancelled", ended_at=workloads.c.created_at)
    )
    op.drop_index("ix_workloads_kind", "workloads")
    op.drop_column("workloads", "updated_at")
