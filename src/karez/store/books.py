"""Projects, keys, secrets, calls, usage and the audit log."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from karez.core.codec import from_text, to_text
from karez.core.errors import AlreadyExists
from karez.core.identity import Key, Project, Role
from karez.core.resources import Grant
from karez.core.usage import AuditRow, Call, UsageRow
from karez.store import schema
from karez.store.database import Database
from karez.store.records import RecordTable


class BookTable(RecordTable):
    """See core.ports.Store: people, secrets, books."""

    db: Database

    def add_project(self, project: Project) -> None:
        """See Store."""
        try:
            with self.db.write() as tx:
                tx.execute(insert(schema.projects).values(name=project.name, body=to_text(project)))
        except IntegrityError as error:
            raise AlreadyExists(noun="project", name=project.name) from error

    def set_quota(self, project: Project) -> bool:
        """See Store."""
        table = schema.projects
        change = update(table).where(table.c.name == project.name).values(body=to_text(project))
        with self.db.write() as tx:
            return tx.execute(change).rowcount == 1

    def projects(self) -> Sequence[Project]:
        """See Store."""
        query = select(schema.projects.c.body).order_by(schema.projects.c.name)
        with self.db.read() as tx:
            return [from_text(Project, body) for (body,) in tx.execute(query)]

    def add_key(self, key: Key) -> None:
        """See Store."""
        with self.db.write() as tx:
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
        """See Store."""
        with self.db.read() as tx:
            row = tx.execute(select(schema.keys).where(schema.keys.c.id == ident)).first()
        return None if row is None else _key(row)

    def keys(self) -> Sequence[Key]:
        """See Store."""
        query = select(schema.keys).order_by(schema.keys.c.created_at.desc(), schema.keys.c.id)
        with self.db.read() as tx:
            return [_key(row) for row in tx.execute(query)]

    def revoke_key(self, ident: str, *, at: float) -> bool:
        """See Store."""
        table = schema.keys
        change = update(table).where(table.c.id == ident, table.c.revoked_at.is_(None))
        with self.db.write() as tx:
            return tx.execute(change.values(revoked_at=at)).rowcount == 1

    def put_secret(self, project: str, name: str, sealed: bytes) -> None:
        """See Store."""
        table = schema.secrets
        query = self._into(table).values(project=project, name=name, sealed=sealed)
        query = query.on_conflict_do_update(
            index_elements=["project", "name"], set_={"sealed": query.excluded.sealed}
        )
        with self.db.write() as tx:
            tx.execute(query)

    def secrets(self, project: str) -> Mapping[str, bytes]:
        """See Store."""
        table = schema.secrets
        query = select(table.c.name, table.c.sealed).where(table.c.project == project)
        with self.db.read() as tx:
            return {name: bytes(sealed) for name, sealed in tx.execute(query)}

    def drop_secret(self, project: str, name: str) -> bool:
        """See Store."""
        table = schema.secrets
        gone = delete(table).where(table.c.project == project, table.c.name == name)
        with self.db.write() as tx:
            return tx.execute(gone).rowcount == 1

    def add_calls(self, calls: Sequence[Call]) -> None:
        """See Store."""
        if not calls:
            return
        names = [column.name for column in schema.calls.columns]
        self._once(schema.calls, [{name: getattr(call, name) for name in names} for call in calls])

    def usage(self, *, projects: Sequence[str] | None, now: float) -> Sequence[UsageRow]:
        """See Store."""
        calls, held, work = schema.calls, schema.allocations, schema.workloads
        tokens = select(
            calls.c.project,
            calls.c.service,
            func.count(),
            func.sum(calls.c.prompt_tokens),
            func.sum(calls.c.completion_tokens),
        ).group_by(calls.c.project, calls.c.service)
        grants = select(
            work.c.project, work.c.name, work.c.sort, held.c.grants, held.c.since, held.c.until
        ).join(work, work.c.id == held.c.workload)
        if projects is not None:
            tokens = tokens.where(calls.c.project.in_(projects))
            grants = grants.where(work.c.project.in_(projects))
        with self.db.read() as tx:
            token_rows = tx.execute(tokens).all()
            grant_rows = tx.execute(grants).all()
        rows = [
            UsageRow(
                project=project,
                what=service,
                kind="tokens",
                requests=count,
                prompt_tokens=int(prompt),
                completion_tokens=int(completion),
            )
            for project, service, count, prompt, completion in token_rows
        ]
        return rows + _device_rows(grant_rows, now)

    def add_audit(self, row: AuditRow) -> None:
        """See Store."""
        with self.db.write() as tx:
            tx.execute(
                insert(schema.audit).values(
                    at=row.at,
                    actor=row.actor,
                    action=row.action,
                    subject=row.subject[:200],
                    outcome=row.outcome,
                    detail=row.detail,
                )
            )

    def audit(self, *, limit: int = 100) -> Sequence[AuditRow]:
        """See Store."""
        table = schema.audit
        with self.db.read() as tx:
            rows = tx.execute(select(table).order_by(table.c.id.desc()).limit(limit)).all()
        return [
            AuditRow(
                id=row.id,
                at=row.at,
                actor=row.actor,
                action=row.action,
                subject=row.subject,
                outcome=row.outcome,
                detail=row.detail,
            )
            for row in rows
        ]


def _device_rows(rows: Sequence[Any], now: float) -> list[UsageRow]:
    seconds: dict[tuple[str, str, str, str], float] = {}
    for project, name, sort, grants, since, until in rows:
        for grant in from_text(tuple[Grant, ...], grants):
            key = (project, name, sort, grant.kind.value)
            span_s = max(0.0, (now if until is None else until) - since)
            seconds[key] = seconds.get(key, 0.0) + span_s * grant.milli / 1000
    return [
        UsageRow(project=project, what=name, kind=sort, device_seconds=total, device_kind=device)
        for (project, name, sort, device), total in seconds.items()
    ]


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
