"""Prices of models, and a ledger of calls; those of before have no line."""

import sqlalchemy as sa
from alembic import op

from karez.store.schema import ledger, prices, spend

revision = "0011"
down_revision = "0010"
_COLUMNS = {"cached_tokens": sa.Integer(), "cost_nano": sa.BigInteger()}


def upgrade() -> None:
    """Add the tables and the columns of calls."""
    bind = op.get_bind()
    ledger.create(bind, checkfirst=True)
    prices.create(bind, checkfirst=True)
    spend.create(bind, checkfirst=True)
    inspector = sa.inspect(bind)
    there = {column["name"] for column in inspector.get_columns("calls")}
    for name, kind in _COLUMNS.items():
        if name not in there:
            op.add_column("calls", sa.Column(name, kind, nullable=False, server_default="0"))
    if "ix_calls_at" not in {index["name"] for index in inspector.get_indexes("calls")}:
        op.create_index("ix_calls_at", "calls", ["at"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_calls_at", "calls")
    for name in _COLUMNS:
        op.drop_column("calls", name)
    op.drop_table("spend")
    op.drop_table("prices")
    op.drop_table("ledger")
