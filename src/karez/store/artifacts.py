"""Store of artifacts."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, or_, select
from typing_extensions import override

from karez.core.artifacts import Artifact, ArtifactId, ArtifactKind, ArtifactSpec
from karez.core.codec import to_text
from karez.core.stores.artifacts import ArtifactStore
from karez.store import schema
from karez.store.database import Database
from karez.store.readable import read_one

_AT_ONCE = 500
"""Digests in one statement: databases take only so many parameters."""


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
                files = [(file.sha256, file.size_bytes) for file in artifact.spec.files]
                self._note(tx, artifact.spec.project, files)
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
    def projects_with(self, name: str) -> Sequence[str]:
        table = schema.artifacts
        query = select(table.c.project).distinct().where(table.c.name == name)
        with self._db.read() as tx:
            return tx.execute(query.order_by(table.c.project)).scalars().all()

    @override
    def note_blob(self, project: str, digest: str, size_bytes: int) -> None:
        with self._db.write() as tx:
            self._note(tx, project, [(digest, size_bytes)])

    @override
    def owned(self, project: str, digests: Sequence[str]) -> set[str]:
        table, found = schema.project_blobs, set[str]()
        with self._db.read() as tx:
            for at in range(0, len(digests), _AT_ONCE):
                some = table.c.digest.in_(digests[at : at + _AT_ONCE])
                query = select(table.c.digest).where(table.c.project == project, some)
                found |= set(tx.execute(query).scalars())
        return found

    @override
    def stored_bytes(self, project: str) -> int:
        table = schema.project_blobs
        query = select(func.coalesce(func.sum(table.c.size_bytes), 0))
        with self._db.read() as tx:
            return int(tx.execute(query.where(table.c.project == project)).scalar_one())

    def _note(self, tx: Connection, project: str, files: Sequence[tuple[str, int]]) -> None:
        rows = [
            {"project": project, "digest": digest, "size_bytes": size}
            for digest, size in dict(files).items()
        ]
        for at in range(0, len(rows), _AT_ONCE):
            query = self._db.into(schema.project_blobs).values(rows[at : at + _AT_ONCE])
            tx.execute(query.on_conflict_do_nothing())

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
            found = [_artifact(row) for row in tx.execute(query)]
        return [artifact for artifact in found if artifact is not None]

    @override
    def remove(self, ident: str) -> bool:
        table, owned = schema.artifacts, schema.project_blobs
        with self._db.write() as tx:
            row = tx.execute(select(table).where(table.c.id == ident)).first()
            if row is None:
                return False
            tx.execute(delete(table).where(table.c.id == ident))
            others = tx.execute(select(table.c.spec).where(table.c.project == row.project))
            kept = set().union(*(_digests(spec) for spec in others.scalars()))
            gone = sorted(_digests(row.spec) - kept)
            for at in range(0, len(gone), _AT_ONCE):
                some = owned.c.digest.in_(gone[at : at + _AT_ONCE])
                tx.execute(delete(owned).where(owned.c.project == row.project, some))
            return True


def _digests(spec: str) -> set[str]:
    """What an artifact consists of; nothing of one that cannot be read."""
    found = read_one(ArtifactSpec, "artifact", spec)
    return set() if found is None else {file.sha256 for file in found.files}


def _artifact(row: Row[Any]) -> Artifact | None:
    spec = read_one(ArtifactSpec, row.id, row.spec)
    if spec is None:
        return None
    return Artifact(
        id=ArtifactId(row.id),
        spec=spec,
        owner=row.owner,
        created_at=row.created_at,
    )
