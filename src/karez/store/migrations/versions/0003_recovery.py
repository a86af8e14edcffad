"""What recoveries leave: the protocol's log, incidents, and what a stored checkpoint covers."""

import sqlalchemy as sa
from alembic import op

from karez.store.schema import metadata

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the new tables; give checkpoints the columns that they lack."""
    bind = op.get_bind()
    known = {column["name"] for column in sa.inspect(bind).get_columns("checkpoints")}
    for name in ("world", "whole"):
        if name not in known:
            column = sa.Column(name, sa.Integer, nullable=False, server_default="0")
            op.add_column("checkpoints", column)
    metadata.create_all(bind)


def downgrade() -> None:
    """Drop what was made."""
    for name in ("transitions", "incidents"):
        op.drop_table(name)
    for name in ("world", "whole"):
        op.drop_column("checkpoints", name)
