"""The first tables."""

from alembic import op

from karez.store.schema import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create what is not there."""
    metadata.create_all(op.get_bind())


def downgrade() -> None:
    """Remove everything."""
    metadata.drop_all(op.get_bind())
