"""Quotas in each kind's unit; what operators say of nodes and plan; sizes gangs should take."""

import json

import sqlalchemy as sa
from alembic import op

from karez.store.schema import metadata

revision = "0002"
down_revision = "0001"
_NAMES = {"quota_milli": "quota", "guarantee_milli": "guarantee", "lend_milli": "lend"}


def upgrade() -> None:
    """Make the new tables, and give limits their new names."""
    bind = op.get_bind()
    metadata.create_all(bind)
    projects = metadata.tables["projects"]
    for name, body in bind.execute(sa.select(projects.c.name, projects.c.body)).all():
        renamed = {_NAMES.get(key, key): value for key, value in json.loads(body).items()}
        bind.execute(
            sa.update(projects).where(projects.c.name == name).values(body=json.dumps(renamed))
        )


def downgrade() -> None:
    """Drop what was made."""
    for name in ("windows", "targets", "marks"):
        op.drop_table(name)
