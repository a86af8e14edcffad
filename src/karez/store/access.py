"""Store of projects, keys and secrets."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, case, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from typing_extensions import override

from karez.core.call_limits import NO_CALL_LIMITS, CallLimits
from karez.core.codec import from_text, to_text
from karez.core.errors import AlreadyExists
from karez.core.identity import Key, Project, Role
from karez.core.stores.access import AccessStore
from karez.store import schema
from karez.store.database import Database
from karez.store.readable import read_all, read_one


class Access(AccessStore):
    """Projects, keys and secrets in SQL."""

    def __init__(self, db: Database) -> None:
        """Keep projects, keys and secrets in an open database."""
        self._db = db

    @override
    def add_project(self, project: Project) -> None:
        try:
            with self._db.write() as tx:
                tx.execute(insert(schema.projects).values(name=project.name, body=to_text(project)))
        except IntegrityError as error:
            raise AlreadyExists(noun="project", name=project.name) from error

    @override
    def set_quota(self, project: Project) -> bool:
        table = schema.projects
        change = update(table).where(table.c.name == project.name).values(body=to_text(project))
        with self._db.write() as tx:
            return tx.execute(change).rowcount == 1

    @override
    def project(self, name: str) -> Project | None:
        table = schema.projects
        with self._db.read() as tx:
            body = tx.execute(select(table.c.body).where(table.c.name == name)).scalar()
        return None if body is None else read_one(Project, name, body)

    @override
    def projects(self) -> Sequence[Project]:
        table = schema.projects
        query = select(table.c.name, table.c.body).order_by(table.c.name)
        with self._db.read() as tx:
            return read_all(Project, tx.execute(query))

    @override
    def add_key(self, key: Key, *, sealed: bytes | None = None) -> None:
        with self._db.write() as tx:
            calls = None if key.calls == NO_CALL_LIMITS else to_text(key.calls)
            values = {**asdict(key), "role": key.role.value, "calls": calls, "sealed": sealed}
            tx.execute(insert(schema.keys).values(**values))

    @override
    def job_key(self, job: str) -> tuple[Key, bytes] | None:
        table = schema.keys
        query = select(table).where(table.c.made_for == job, table.c.revoked_at.is_(None))
        with self._db.read() as tx:
            row = tx.execute(query.limit(1)).first()
        return None if row is None or row.sealed is None else (_key(row), bytes(row.sealed))

    @override
    def key(self, ident: str) -> Key | None:
        with self._db.read() as tx:
            row = tx.execute(select(schema.keys).where(schema.keys.c.id == ident)).first()
        return None if row is None else _key(row)

    @override
    def keys(self) -> Sequence[Key]:
        query = select(schema.keys).order_by(schema.keys.c.created_at.desc(), schema.keys.c.id)
        with self._db.read() as tx:
            return [_key(row) for row in tx.execute(query)]

    @override
    def revoke_key(self, ident: str, *, at: float) -> bool:
        table = schema.keys
        change = update(table).where(table.c.id == ident, table.c.revoked_at.is_(None))
        with self._db.write() as tx:
            return tx.execute(change.values(revoked_at=at)).rowcount == 1

    @override
    def expire_key(self, ident: str, *, at: float) -> bool:
        table = schema.keys
        change = update(table).where(table.c.id == ident, table.c.revoked_at.is_(None))
        earlier = case((table.c.expires_at < at, table.c.expires_at), else_=at)
        with self._db.write() as tx:
            return tx.execute(change.values(expires_at=earlier)).rowcount == 1

    @override
    def drop_key(self, ident: str) -> None:
        with self._db.write() as tx:
            tx.execute(delete(schema.keys).where(schema.keys.c.id == ident))

    @override
    def hand_over_keys(self, parent: str, other: str) -> None:
        table = schema.keys
        with self._db.write() as tx:
            tx.execute(update(table).where(table.c.parent == parent).values(parent=other))

    @override
    def put_secret(self, project: str, name: str, sealed: bytes) -> None:
        table = schema.secrets
        query = self._db.into(table).values(project=project, name=name, sealed=sealed)
        query = query.on_conflict_do_update(
            index_elements=["project", "name"], set_={"sealed": query.excluded.sealed}
        )
        with self._db.write() as tx:
            tx.execute(query)

    @override
    def secrets(self, project: str) -> Mapping[str, bytes]:
        table = schema.secrets
        query = select(table.c.name, table.c.sealed).where(table.c.project == project)
        with self._db.read() as tx:
            return {name: bytes(sealed) for name, sealed in tx.execute(query)}

    @override
    def drop_secret(self, project: str, name: str) -> bool:
        table = schema.secrets
        removal = delete(table).where(table.c.project == project, table.c.name == name)
        with self._db.write() as tx:
            return tx.execute(removal).rowcount == 1


def _key(row: Row[Any]) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        project=row.project,
        role=Role(row.role),
        digest=row.digest,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
        expires_at=row.expires_at,
        calls=NO_CALL_LIMITS if row.calls is None else from_text(CallLimits, row.calls),
        made_for=row.made_for,
        parent=row.parent,
    )
