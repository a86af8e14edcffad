"""${message}"""

from alembic import op

revision = "${up_revision}"
down_revision = "${down_revision}"


def upgrade() -> None:
    """Go forward."""


def downgrade() -> None:
    """Go back."""
