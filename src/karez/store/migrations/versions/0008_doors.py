"""Which bytes a project has, when keys expire, and an audit log that takes any name."""

import json

import sqlalchemy as sa
from alembic import op

from karez.store.schema import artifacts, project_blobs

revision = "0008"
down_revision = "0007"
_AUDIT = {"actor": 80, "action": 80, "subject": 200, "outcome": 40}
"""Column -> its greatest length before."""


def upgrade() -> None:
    """Add the table, with what the artifacts of each project consist of."""
    bind = op.get_bind()
    project_blobs.create(bind, checkfirst=True)
    known = {
        tuple(row)
        for row in bind.execute(sa.select(project_blobs.c.project, project_blobs.c.digest))
    }
    for project, spec in bind.execute(sa.select(artifacts.c.project, artifacts.c.spec)).all():
        new = {
            (project, digest): size
            for digest, size in _files(spec)
            if (project, digest) not in known
        }
        known |= new.keys()
        rows = [
            {"project": key[0], "digest": key[1], "size_bytes": size} for key, size in new.items()
        ]
        if rows:
            bind.execute(sa.insert(project_blobs), rows)
    if "expires_at" not in {column["name"] for column in sa.inspect(bind).get_columns("keys")}:
        op.add_column("keys", sa.Column("expires_at", sa.Float()))
    if bind.dialect.name == "postgresql":  # SQLite keeps texts of any length
        for name in _AUDIT:
            op.alter_column("audit", name, type_=sa.Text())


def _files(spec: str) -> list[tuple[str, int]]:
    """(SHA-256, size) of an artifact's files; none of one that cannot be read."""
    try:
        return [(file["sha256"], file["size_bytes"]) for file in json.loads(spec)["files"]]
    except (ValueError, LookupError, TypeError):
        return []


def downgrade() -> None:
    """Drop it."""
    op.drop_table("project_blobs")
    op.drop_column("keys", "expires_at")
    if op.get_bind().dialect.name == "postgresql":
        for name, length in _AUDIT.items():
            cut = f"left({name}, {length})"
            op.alter_column("audit", name, type_=sa.String(length), postgresql_using=cut)
