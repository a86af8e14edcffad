"""Workloads, their leases and what they hold."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    Update,
    and_,
    bindparam,
    func,
    insert,
    or_,
    select,
    update,
)

from karez.core.codec import from_text, to_text
from karez.core.errors import AlreadyExists
from karez.core.resources import Grant
from karez.core.workloads import (
    ENDED,
    Allocation,
    Job,
    JobSpec,
    Service,
    ServiceSpec,
    State,
    Status,
    WorkloadId,
)
from karez.store.database import Database
from karez.store.schema import allocations as held
from karez.store.schema import workloads as table

_YIELDS = [State.STARTING.value, State.RUNNING.value, State.RECOVERING.value]
_FRESH = Status()
_FRESH_TEXT = to_text(_FRESH)  # of nearly all that wait: reading it anew is half the cost of a row
_ENDED = [state.value for state in ENDED]
Grants = tuple[Grant, ...]


class Workloads:
    """See core.stores.WorkloadStore."""

    def __init__(self, db: Database) -> None:
        """Over an open database."""
        self._db = db

    def add_job(self, job: Job) -> None:
        """See the contract."""
        with self._db.write() as tx:
            self._insert(tx, "job", job)

    def add_service(self, service: Service) -> None:
        """See the contract."""
        with self._db.write() as tx:
            live = select(table.c.id).where(
                table.c.kind == "service",
                table.c.name == service.spec.name,
                table.c.state.not_in(_ENDED),
            )
            if tx.execute(live).first():
                raise AlreadyExists(noun="service", name=service.spec.name)
            self._insert(tx, "service", service)

    def _insert(self, tx: Connection, kind: str, item: Job | Service) -> None:
        tx.execute(
            insert(table).values(
                id=item.id,
                seq=self._db.next_number(tx, "workloads"),
                kind=kind,
                name=item.spec.name,
                project=item.spec.project,
                owner=item.owner,
                state=item.state.value,
                priority=item.spec.priority,
                spec=to_text(item.spec),
                status=to_text(item.status),
                wait_reason="",
                created_at=item.created_at,
                epoch=0,
            )
        )

    def job(self, ident: str) -> Job | None:
        """See the contract."""
        row = self._one("job", ident)
        return _job(row) if row else None

    def service(self, ident: str) -> Service | None:
        """See the contract."""
        row = self._one("service", ident)
        return _service(row) if row else None

    def _one(self, kind: str, ident: str) -> Row[Any] | None:
        query = (
            select(table)
            .where(table.c.kind == kind, or_(table.c.id == ident, table.c.name == ident))
            .order_by((table.c.id == ident).desc(), table.c.seq.desc())
            .limit(1)
        )
        with self._db.read() as tx:
            return tx.execute(query).first()

    def jobs(
        self, *, projects: Sequence[str] | None, states: Sequence[State] = (), limit: int = 100
    ) -> Sequence[Job]:
        """See the contract."""
        with self._db.read() as tx:
            return [_job(row) for row in tx.execute(_query("job", projects, states).limit(limit))]

    def services(
        self, *, projects: Sequence[str] | None, states: Sequence[State] = ()
    ) -> Sequence[Service]:
        """See the contract."""
        with self._db.read() as tx:
            return [_service(row) for row in tx.execute(_query("service", projects, states))]

    def count_states(self) -> Mapping[tuple[str, State], int]:
        """See the contract."""
        query = select(table.c.kind, table.c.state, func.count()).group_by(
            table.c.kind, table.c.state
        )
        with self._db.read() as tx:
            return {(kind, State(state)): count for kind, state, count in tx.execute(query)}

    def update(
        self,
        ident: WorkloadId,
        *,
        token: str | None = None,
        state: State | None = None,
        status: Status | None = None,
        at: float | None = None,
    ) -> bool:
        """See the contract."""
        values: dict[str, object] = {}
        if status is not None:
            values["status"] = to_text(status)
        if state is not None:
            values["state"] = state.value
            if state == State.RUNNING and at is not None:
                values["started_at"] = func.coalesce(table.c.started_at, at)
        change = update(table).where(table.c.id == ident, table.c.state.not_in(_ENDED))
        if token is not None:
            change = change.where(table.c.lease_token == token)
            if state not in (None, State.STOPPING):
                asked = (State.STOPPING.value, State.PREEMPTING.value)
                change = change.where(table.c.state.not_in(asked))
        with self._db.write() as tx:
            return tx.execute(change.values(**values)).rowcount == 1

    def request_stop(self, ident: WorkloadId, *, at: float) -> State | None:
        """See the contract."""
        with self._db.write() as tx:
            row = tx.execute(select(table).where(table.c.id == ident)).first()
            if row is None:
                return None
            if row.state in _ENDED:
                return State(row.state)
            if row.state == State.QUEUED.value:
                values: dict[str, object] = {"state": State.CANCELLED.value, "ended_at": at}
            else:
                values = {"state": State.STOPPING.value}
            tx.execute(update(table).where(table.c.id == ident).values(**values))
            return State(str(values["state"]))

    def request_preemption(self, ident: WorkloadId) -> bool:
        """See the contract."""
        change = (
            update(table)
            .where(table.c.id == ident, table.c.state.in_(_YIELDS))
            .values(state=State.PREEMPTING.value)
        )
        with self._db.write() as tx:
            return tx.execute(change).rowcount == 1

    def queued(self) -> Sequence[tuple[WorkloadId, str, str]]:
        """See the contract."""
        query = (
            select(table.c.id, table.c.kind, table.c.wait_reason)
            .where(table.c.state == State.QUEUED.value)
            .order_by(table.c.seq)
        )
        with self._db.read() as tx:
            return [(WorkloadId(ident), kind, reason) for ident, kind, reason in tx.execute(query)]

    def explain(self, reasons: Mapping[WorkloadId, str]) -> None:
        """See the contract."""
        if not reasons:
            return
        change = (
            update(table)
            .where(table.c.id == bindparam("ident"), table.c.state == State.QUEUED.value)
            .values(wait_reason=bindparam("reason"))
        )
        rows = [{"ident": ident, "reason": reason} for ident, reason in reasons.items()]
        with self._db.write() as tx:
            tx.execute(change, rows)

    def drop_leases(self, owner: str) -> None:
        """See the contract."""
        with self._db.write() as tx:
            tx.execute(
                update(table)
                .where(table.c.lease_owner == owner)
                .values(lease_owner=None, lease_token=None, lease_until=None)
            )

    def claim(
        self, states: Sequence[State], *, owner: str, now: float, lease_s: float
    ) -> Sequence[tuple[WorkloadId, str]]:
        """See the contract."""
        free = and_(
            table.c.state.in_([state.value for state in states]),
            or_(table.c.lease_until.is_(None), table.c.lease_until < now),
        )
        with self._db.read() as tx:
            if not tx.execute(select(table.c.id).where(free).limit(1)).first():
                return []
        taken = []
        with self._db.write() as tx:
            query = select(table.c.id).where(free).order_by(table.c.seq)
            for (ident,) in tx.execute(query.with_for_update(skip_locked=True)).all():
                token = secrets.token_hex(8)
                tx.execute(
                    update(table)
                    .where(table.c.id == ident)
                    .values(lease_owner=owner, lease_token=token, lease_until=now + lease_s)
                )
                taken.append((WorkloadId(ident), token))
        return taken

    def renew(self, owner: str, *, now: float, lease_s: float) -> None:
        """See the contract."""
        with self._db.write() as tx:
            tx.execute(
                update(table)
                .where(table.c.lease_owner == owner, table.c.state.not_in(_ENDED))
                .values(lease_until=now + lease_s)
            )

    def release(self, ident: WorkloadId, token: str) -> None:
        """See the contract."""
        with self._db.write() as tx:
            tx.execute(
                update(table)
                .where(table.c.id == ident, table.c.lease_token == token)
                .values(lease_owner=None, lease_token=None, lease_until=None)
            )

    def place(self, ident: WorkloadId, grants: Sequence[Grant], *, now: float) -> int | None:
        """See the contract."""
        with self._db.write() as tx:
            epoch = tx.execute(
                update(table)
                .where(table.c.id == ident, table.c.state == State.QUEUED.value)
                .values(state=State.PLACED.value, epoch=table.c.epoch + 1)
                .returning(table.c.epoch)
            ).scalar()
            return _grant(tx, ident, epoch, grants, now)

    def regrant(
        self, ident: WorkloadId, token: str, grants: Sequence[Grant], *, now: float
    ) -> int | None:
        """See the contract."""
        with self._db.write() as tx:
            epoch = tx.execute(
                _guarded(ident, token).values(epoch=table.c.epoch + 1).returning(table.c.epoch)
            ).scalar()
            if epoch is not None:
                _free(tx, ident, now)
            return _grant(tx, ident, epoch, grants, now)

    def requeue(self, ident: WorkloadId, token: str, status: Status, *, now: float) -> bool:
        """See the contract."""
        with self._db.write() as tx:
            done = tx.execute(
                _guarded(ident, token)
                .where(table.c.state != State.STOPPING.value)
                .values(
                    state=State.QUEUED.value,
                    status=to_text(status),
                    lease_owner=None,
                    lease_token=None,
                    lease_until=None,
                )
            )
            if done.rowcount == 1:
                _free(tx, ident, now)
            return done.rowcount == 1

    def end(
        self, ident: WorkloadId, token: str, state: State, status: Status, *, now: float
    ) -> bool:
        """See the contract."""
        with self._db.write() as tx:
            done = tx.execute(
                _guarded(ident, token).values(
                    state=state.value,
                    status=to_text(status),
                    ended_at=now,
                    lease_owner=None,
                    lease_token=None,
                    lease_until=None,
                )
            )
            if done.rowcount == 1:
                _free(tx, ident, now)
            return done.rowcount == 1

    def allocations(self) -> Mapping[WorkloadId, Allocation]:
        """See the contract."""
        with self._db.read() as tx:
            rows = tx.execute(select(held).where(held.c.until.is_(None))).all()
        return {
            WorkloadId(row.workload): Allocation(
                workload=WorkloadId(row.workload),
                epoch=row.epoch,
                grants=from_text(Grants, row.grants),
                since=row.since,
            )
            for row in rows
        }


def _guarded(ident: WorkloadId, token: str) -> Update:
    return update(table).where(
        table.c.id == ident, table.c.lease_token == token, table.c.state.not_in(_ENDED)
    )


def _grant(
    tx: Connection, ident: WorkloadId, epoch: int | None, grants: Sequence[Grant], now: float
) -> int | None:
    if epoch is None:
        return None
    body = _grants_text(tuple(grants))
    tx.execute(insert(held).values(workload=ident, epoch=epoch, grants=body, since=now))
    return int(epoch)


def _grants_text(grants: Grants) -> str:
    return "[" + ",".join(to_text(grant) for grant in grants) + "]"


def _free(tx: Connection, ident: WorkloadId, now: float) -> None:
    tx.execute(
        update(held).where(held.c.workload == ident, held.c.until.is_(None)).values(until=now)
    )


def _query(kind: str, projects: Sequence[str] | None, states: Sequence[State]) -> Select[Any]:
    query = select(table).where(table.c.kind == kind)
    if projects is not None:
        query = query.where(table.c.project.in_(projects))
    if states:
        query = query.where(table.c.state.in_([state.value for state in states]))
    return query.order_by(table.c.seq.desc())


def _status(row: Row[Any]) -> Status:
    status = _FRESH if row.status == _FRESH_TEXT else from_text(Status, row.status)
    if row.state == State.QUEUED.value and row.wait_reason:
        return replace(status, reason=row.wait_reason)
    return status


def _job(row: Row[Any]) -> Job:
    return Job(
        id=WorkloadId(row.id),
        spec=from_text(JobSpec, row.spec),
        state=State(row.state),
        status=_status(row),
        owner=row.owner,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )


def _service(row: Row[Any]) -> Service:
    return Service(
        id=WorkloadId(row.id),
        spec=from_text(ServiceSpec, row.spec),
        state=State(row.state),
        status=_status(row),
        owner=row.owner,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )
