"""The field's words: workloads have a `kind`, and a job that makes room is `preempting`."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Rename the column where an older release made it, and the state in every row."""
    known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("workloads")}
    if "sort" in known:
        op.alter_column("workloads", "sort", new_column_name="kind")
    op.execute("UPDATE workloads SET state = 'preempting' WHERE state = 'yielding'")


def downgrade() -> None:
    """Give both their older names."""
    op.execute("UPDATE workloads SET state = 'yielding' WHERE state = 'preempting'")
    op.alter_column("workloads", "kind", new_column_name="sort")
