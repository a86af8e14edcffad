"""What a key may ask of models."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the column; keys of before have no limits."""
    if "calls" not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns("keys")}:
        op.add_column("keys", sa.Column("calls", sa.Text()))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("keys", "calls")
