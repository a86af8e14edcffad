"""Decisions of the scheduler that are not carried out yet outlive control."""

from alembic import op

from karez.store.schema import scheduler_state

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the table of the scheduler's own state."""
    scheduler_state.create(op.get_bind(), checkfirst=True)  # 0003 makes all tables of a new store


def downgrade() -> None:
    """Drop it."""
    op.drop_table("scheduler_state")
