"""Prices of devices; what workloads held before is not billed."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from karez.store.schema import allocations, device_prices

revision = "0012"
down_revision = "0011"
_COLUMNS: dict[str, type[sa.types.TypeEngine[Any]]] = {
    "unbilled_since": sa.Float,
    "devices": sa.Text,
    "costs": sa.Text,
}


def upgrade() -> None:
    """Add the table and the columns; what is held now is billed from when it has a price."""
    bind = op.get_bind()
    device_prices.create(bind, checkfirst=True)
    inspector = sa.inspect(bind)
    there = {column["name"] for column in inspector.get_columns("allocations")}
    for name, kind in _COLUMNS.items():
        if name not in there:
            op.add_column("allocations", sa.Column(name, kind))
    indexes = {index["name"] for index in inspector.get_indexes("allocations")}
    if "ix_allocations_unbilled" not in indexes:
        op.create_index("ix_allocations_unbilled", "allocations", ["unbilled_since"])
    held = allocations.update().where(allocations.c.until.is_(None))
    bind.execute(held.values(unbilled_since=allocations.c.since))


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_allocations_unbilled", "allocations")
    for name in _COLUMNS:
        op.drop_column("allocations", name)
    op.drop_table("device_prices")
