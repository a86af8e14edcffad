"""Projects, keys and secrets."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from karez.core.codec import from_text, to_text
from karez.core.errors import AlreadyExists
from karez.core.identity import Key, Project, Role
from karez.store import schema
from karez.store.database import Database


class Access:
    """See core.stores.PeopleStore."""

    def __init__(self, db: Database) -> None:
        """Over an open database."""
        self._db = db

    def add_project(self, project: Project) -> None:
        """See the contract."""
        try:
            with self._db.write() as tx:
                tx.execute(insert(schema.projects).values(name=project.name, body=to_text(project)))
        except IntegrityError as error:
            raise AlreadyExists(noun="project", name=project.name) from error

    def set_quota(self, project: Project) -> bool:
        """See the contract."""
        table = schema.projects
        change = update(table).where(table.c.name == project.name).values(body=to_text(project))
        with self._db.write() as tx:
            return tx.execute(change).rowcount == 1

    def projects(self) -> Sequence[Project]:
        """See the contract."""
        query = select(schema.projects.c.body).order_by(schema.projects.c.name)
        with self._db.read() as tx:
            return [from_text(Project, body) for (body,) in tx.execute(query)]

    def add_key(self, key: Key) -> None:
        """See the contract."""
        with self._db.write() as tx:
            tx.execute(
                insert(schema.keys).values(
                    id=key.id,
                    name=key.name,
                    project=key.project,
                    role=key.role.value,
                    digest=key.digest,
                    created_at=key.created_at,
                    revoked_at=key.revoked_at,
                )
            )

    def key(self, ident: str) -> Key | None:
        """See the contract."""
        with self._db.read() as tx:
            row = tx.execute(select(schema.keys).where(schema.keys.c.id == ident)).first()
        return None if row is None else _key(row)

    def keys(self) -> Sequence[Key]:
        """See the contract."""
        query = select(schema.keys).order_by(schema.keys.c.created_at.desc(), schema.keys.c.id)
        with self._db.read() as tx:
            return [_key(row) for row in tx.execute(query)]

    def revoke_key(self, ident: str, *, at: float) -> bool:
        """See the contract."""
        table = schema.keys
        change = update(table).where(table.c.id == ident, table.c.revoked_at.is_(None))
        with self._db.write() as tx:
            return tx.execute(change.values(revoked_at=at)).rowcount == 1

    def put_secret(self, project: str, name: str, sealed: bytes) -> None:
        """See the contract."""
        table = schema.secrets
        query = self._db.into(table).values(project=project, name=name, sealed=sealed)
        query = query.on_conflict_do_update(
            index_elements=["project", "name"], set_={"sealed": query.excluded.sealed}
        )
        with self._db.write() as tx:
            tx.execute(query)

    def secrets(self, project: str) -> Mapping[str, bytes]:
        """See the contract."""
        table = schema.secrets
        query = select(table.c.name, table.c.sealed).where(table.c.project == project)
        with self._db.read() as tx:
            return {name: bytes(sealed) for name, sealed in tx.execute(query)}

    def drop_secret(self, project: str, name: str) -> bool:
        """See the contract."""
        table = schema.secrets
        gone = delete(table).where(table.c.project == project, table.c.name == name)
        with self._db.write() as tx:
            return tx.execute(gone).rowcount == 1


def _key(row: Row[Any]) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        project=row.project,
        role=Role(row.role),
        digest=row.digest,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )
