"""Jobs of an array know their array and their index in it."""

import sqlalchemy as sa
from alembic import op

from karez.store.schema import workloads

revision = "0006"
down_revision = "0005"
_COLUMNS = ("array", "array_index", "array_first", "array_limit")
_INDEX = "ix_workloads_array"


def upgrade() -> None:
    """Add the columns to a store that an older release made."""
    inspector = sa.inspect(op.get_bind())
    known = {column["name"] for column in inspector.get_columns("workloads")}
    for name in _COLUMNS:
        if name not in known:
            op.add_column("workloads", sa.Column(name, workloads.c[name].type))
    if _INDEX not in {index["name"] for index in inspector.get_indexes("workloads")}:
        op.create_index(_INDEX, "workloads", ["array", "state"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index(_INDEX, "workloads")
    for name in _COLUMNS:
        op.drop_column("workloads", name)
