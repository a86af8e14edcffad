"""Store of artifacts."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, delete, insert, or_, select
from typing_extensions import override

from karez.core.artifacts import Artifact, ArtifactId, ArtifactKind, ArtifactSpec
from karez.core.codec import from_text, to_text
from karez.core.stores.artifacts import ArtifactStore
from karez.store import schema
from karez.store.database import Database


class Artifacts(ArtifactStore):
    """Registered artifacts in SQL."""

    def __init__(self, db: Database) -> None:
        """Keep artifacts in an open database."""
        self._db = db

    @override
    def add(self, artifact: Artifact) -> Artifact:
        table = schema.artifacts
        with self._db.write() as tx:
            row = tx.execute(select(table).where(table.c.id == artifact.id)).first()
            if row is None:
                tx.execute(
                    insert(table).values(
                        id=artifact.id,
                        seq=self._db.next_number(tx, "artifacts"),
                        name=artifact.spec.name,
                        kind=artifact.spec.kind.value,
                        project=artifact.spec.project,
                        owner=artifact.owner,
                        created_at=artifact.created_at,
                        spec=to_text(artifact.spec),
                    )
                )
        return self.find(artifact.id) or artifact

    @override
    def find(self, ident: str, *, projects: Sequence[str] | None = None) -> Artifact | None:
        table = schema.artifacts
        query = (
            select(table)
            .where(or_(table.c.id == ident, table.c.name == ident))
            .order_by((table.c.id == ident).desc(), table.c.seq.desc())
            .limit(1)
        )
        if projects is not None:
            query = query.where(table.c.project.in_(projects))
        with self._db.read() as tx:
            row = tx.execute(query).first()
        return None if row is None else _artifact(row)

    @override
    def list(
        self, *, projects: Sequence[str] | None, kinds: Sequence[ArtifactKind] = ()
    ) -> Sequence[Artifact]:
        table = schema.artifacts
        query = select(table).order_by(table.c.seq.desc())
        if projects is not None:
            query = query.where(table.c.project.in_(projects))
        if kinds:
            query = query.where(table.c.kind.in_([kind.value for kind in kinds]))
        with self._db.read() as tx:
            return [_artifact(row) for row in tx.execute(query)]

    @override
    def remove(self, ident: str) -> bool:
        removal = delete(schema.artifacts).where(schema.artifacts.c.id == ident)
        with self._db.write() as tx:
            return tx.execute(removal).rowcount == 1


def _artifact(row: Row[Any]) -> Artifact:
    return Artifact(
        id=ArtifactId(row.id),
        spec=from_text(ArtifactSpec, row.spec),
        owner=row.owner,
        created_at=row.created_at,
    )
