"""Rules of alerts, and the alerts that they lead to."""

import sqlalchemy as sa
from alembic import op

from karez.store.schema import alert_rules, alerts

revision = "0007"
down_revision = "0006"
_INDICES = (("workloads", "ended_at"), ("receipts", "detected_at"))


def upgrade() -> None:
    """Add the tables, and what makes it cheap to look for what is new."""
    bind = op.get_bind()
    for table in (alert_rules, alerts):
        table.create(bind, checkfirst=True)
    for table_name, column in _INDICES:
        name = f"ix_{table_name}_{column}"
        if name not in {index["name"] for index in sa.inspect(bind).get_indexes(table_name)}:
            op.create_index(name, table_name, [column])


def downgrade() -> None:
    """Drop them."""
    for table_name, column in _INDICES:
        op.drop_index(f"ix_{table_name}_{column}", table_name)
    for table in ("alerts", "alert_rules"):
        op.drop_table(table)
