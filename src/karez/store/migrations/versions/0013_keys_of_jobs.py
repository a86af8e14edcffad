"""Keys that are made for jobs, which call models with them."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the columns."""
    there = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("keys")}
    for name in ("made_for", "parent"):
        if name not in there:
            op.add_column("keys", sa.Column(name, sa.String(40), nullable=False, server_default=""))
    if "sealed" not in there:
        op.add_column("keys", sa.Column("sealed", sa.LargeBinary()))


def downgrade() -> None:
    """Drop them, and the keys: nothing else tells them from keys of people."""
    op.get_bind().execute(sa.text("DELETE FROM keys WHERE made_for != ''"))
    for name in ("made_for", "parent", "sealed"):
        op.drop_column("keys", name)
