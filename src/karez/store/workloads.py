"""Store of workloads, their leases and their allocations."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, or_, select, update
from typing_extensions import override

from karez.core.codec import to_text
from karez.core.errors import AlreadyExists
from karez.core.grants import Grant
from karez.core.jobs import Job
from karez.core.services import Replica, Service
from karez.core.stores.workloads import WorkloadStore
from karez.core.traces import HeldDevices
from karez.core.workloads import (
    INITIAL_STATUS,
    WAITING,
    Allocation,
    EndReason,
    State,
    Status,
    WorkloadId,
)
from karez.store import allocations, arrays, leases
from karez.store.database import Database
from karez.store.leases import NO_LEASE, under_lease
from karez.store.schema import targets
from karez.store.schema import workloads as table
from karez.store.workload_rows import (
    ENDED_STATES,
    READERS,
    WAITING_STATES,
    read_job,
    read_service,
    row_values,
    select_all,
    select_newest,
    settled_values,
)

_PREEMPTIBLE = [State.STARTING.value, State.RUNNING.value, State.RECOVERING.value]
_REQUESTED = [State.STOPPING.value, State.PREEMPTING.value]
"""States that users and the scheduler ask for; the owner of the lease does not overwrite them."""


class Workloads(WorkloadStore):
    """Jobs and services in SQL, each with its state, its lease and its epoch in one row."""

    def __init__(self, db: Database) -> None:
        """Keep workloads in an open database."""
        self._db = db

    @override
    def add_job(self, job: Job) -> None:
        with self._db.write() as tx:
            self._insert(tx, "job", [job])

    @override
    def add_array(self, jobs: Sequence[Job]) -> None:
        with self._db.write() as tx:
            self._insert(tx, "job", jobs)

    @override
    def add_service(self, service: Service) -> None:
        with self._db.write() as tx:
            live = select(table.c.id).where(
                table.c.kind == "service",
                table.c.name == service.spec.name,
                table.c.project == service.spec.project,
                table.c.state.not_in(ENDED_STATES),
            )
            if tx.execute(live).first():
                raise AlreadyExists(noun="service", name=service.spec.name)
            self._insert(tx, "service", [service])

    def _insert(self, tx: Connection, kind: str, items: Sequence[Job | Service]) -> None:
        last = self._db.next_number(tx, "workloads", len(items))
        first = last - len(items) + 1
        rows = [{"seq": seq, **row_values(kind, item)} for seq, item in enumerate(items, first)]
        tx.execute(insert(table), rows)

    @override
    def job(self, ident: str) -> Job | None:
        with self._db.read() as tx:
            row = tx.execute(select_newest("job", ident)).first()
            if row is not None and row.id == ident:
                return read_job(row)
            array = arrays.find(tx, ident)  # before a job whose name is that id
            return read_job(row) if array is None and row is not None else array

    @override
    def service(self, ident: str) -> Service | None:
        with self._db.read() as tx:
            row = tx.execute(select_newest("service", ident)).first()
        return read_service(row) if row else None

    @override
    def find(self, ident: str) -> Job | Service | Replica | None:
        return self.by_id(ident) or self.job(ident) or self.service(ident)

    @override
    def by_id(self, ident: str) -> Job | Service | Replica | None:
        with self._db.read() as tx:
            row = tx.execute(select(table).where(table.c.id == ident)).first()
        return READERS[row.kind](row) if row else None

    @override
    def jobs(
        self,
        *,
        projects: Sequence[str] | None,
        states: Sequence[State] = (),
        name: str = "",
        array: str = "",
        whole_arrays: bool = False,
        limit: int = 100,
    ) -> Sequence[Job]:
        query = select_all("job", projects, () if whole_arrays else states, name).limit(limit)
        if array:
            query = query.where(table.c.array == array)
        if whole_arrays:
            query = query.where(arrays.one_row(states))
        with self._db.read() as tx:
            jobs = [read_job(row) for row in tx.execute(query)]
            return arrays.fold(tx, jobs) if whole_arrays else jobs

    @override
    def ended_jobs(self, *, since: float, limit: int) -> tuple[Sequence[Job], float | None]:
        query = select(table.c.id, table.c.array, table.c.ended_at)
        query = query.where(table.c.kind == "job", table.c.ended_at >= since)
        with self._db.read() as tx:
            rows = tx.execute(query.order_by(table.c.ended_at).limit(limit)).all()
            last = rows[-1].ended_at if len(rows) == limit else None
            if last == since:  # more than a page at one instant: they are passed over together
                last = math.nextafter(since, math.inf)
            idents = [row.id for row in rows if row.array is None]
            of_arrays = {row.array for row in rows if row.array is not None}
            whole = select(table).where(
                or_(
                    table.c.id.in_(idents),
                    and_(table.c.array.in_(of_arrays), table.c.array_first == 1),
                )
            )
            jobs = [read_job(row) for row in tx.execute(whole.order_by(table.c.seq))]
            return arrays.fold(tx, jobs), last

    @override
    def services(
        self, *, projects: Sequence[str] | None, states: Sequence[State] = (), name: str = ""
    ) -> Sequence[Service]:
        with self._db.read() as tx:
            rows = tx.execute(select_all("service", projects, states, name))
            return [read_service(row) for row in rows]

    @override
    def count_waiting(self, project: str) -> int:
        waits = (table.c.kind == "job", table.c.state.in_(WAITING_STATES))
        query = select(func.count()).where(table.c.project == project, *waits)
        with self._db.read() as tx:
            return int(tx.execute(query).scalar_one())

    @override
    def count_states(self) -> Mapping[tuple[str, State], int]:
        query = select(table.c.kind, table.c.state, func.count()).group_by(
            table.c.kind, table.c.state
        )
        with self._db.read() as tx:
            return {(kind, State(state)): count for kind, state, count in tx.execute(query)}

    @override
    def update(
        self,
        ident: WorkloadId,
        *,
        token: str | None = None,
        state: State | None = None,
        status: Status | None = None,
        at: float | None = None,
    ) -> bool:
        values: dict[str, object] = {}
        if status is not None:
            values["status"] = to_text(status)
        if state is not None:
            values["state"] = state.value
            if state == State.RUNNING and at is not None:
                values["started_at"] = func.coalesce(table.c.started_at, at)
        change = update(table).where(table.c.id == ident, table.c.state.not_in(ENDED_STATES))
        if token is not None:
            change = under_lease(ident, token)
            if state not in (None, State.STOPPING):
                change = change.where(table.c.state.not_in(_REQUESTED))
        with self._db.write() as tx:
            return tx.execute(change.values(**values)).rowcount == 1

    @override
    def fail(self, ident: WorkloadId, why: str, *, at: float) -> bool:
        status = replace(INITIAL_STATUS, reason=why, end=EndReason.START_FAILED)
        change = update(table).where(table.c.id == ident, table.c.state.in_(WAITING_STATES))
        change = change.values(
            state=State.FAILED.value, status=to_text(status), wait_reason="", ended_at=at
        )
        with self._db.write() as tx:
            return tx.execute(change).rowcount == 1

    @override
    def request_stop(self, ident: WorkloadId, *, at: float) -> State | None:
        with self._db.write() as tx:
            state = tx.execute(select(table.c.state).where(table.c.id == ident)).scalar()
            if state is None:
                return arrays.request_stop(tx, ident, at=at)
            if state in ENDED_STATES:
                return State(state)
            new = State.CANCELLED if state in WAITING_STATES else State.STOPPING
            change = update(table).where(table.c.id == ident).values(state=new.value)
            tx.execute(change.values(ended_at=at) if new == State.CANCELLED else change)
            return new

    @override
    def request_preemption(self, ident: WorkloadId) -> bool:
        change = (
            update(table)
            .where(table.c.id == ident, table.c.state.in_(_PREEMPTIBLE))
            .values(state=State.PREEMPTING.value)
        )
        with self._db.write() as tx:
            return tx.execute(change).rowcount == 1

    @override
    def queued(self) -> Sequence[tuple[WorkloadId, str, str]]:
        query = (
            select(table.c.id, table.c.kind, table.c.wait_reason)
            .where(table.c.state == State.QUEUED.value, table.c.kind != "service")
            .order_by(table.c.seq)
        )
        with self._db.read() as tx:
            return [(WorkloadId(ident), kind, reason) for ident, kind, reason in tx.execute(query)]

    @override
    def explain(self, reasons: Mapping[WorkloadId, str]) -> None:
        if not reasons:
            return
        change = (
            update(table)
            .where(
                table.c.id == bindparam("ident"), or_(*map(table.c.state.__eq__, WAITING_STATES))
            )
            .values(wait_reason=bindparam("reason"))
        )
        rows = [{"ident": ident, "reason": reason} for ident, reason in reasons.items()]
        with self._db.write() as tx:
            tx.execute(change, rows)

    @override
    def held_jobs(self) -> Sequence[Job]:
        with self._db.read() as tx:
            return [read_job(row) for row in tx.execute(arrays.select_held())]

    @override
    def settle_held(self, job: Job, state: State, reason: str, *, now: float) -> bool:
        change = update(table).where(table.c.id == job.id, table.c.state == State.HELD.value)
        values = {"spec": to_text(job.spec), **settled_values(state, reason, now)}
        with self._db.write() as tx:
            return tx.execute(change.values(**values)).rowcount == 1

    @override
    def settle_array(self, array: str, state: State, reason: str, *, now: float) -> int:
        with self._db.read() as tx:  # most passes have nothing to write
            if not arrays.may_settle(tx, array, state):
                return 0
        with self._db.write() as tx:
            return arrays.settle(tx, array, state, settled_values(state, reason, now))

    @override
    def longest_waiting(self, *, limit: int) -> Sequence[Job]:
        query = select_all("job", None, ()).where(arrays.one_row(tuple(WAITING)))
        with self._db.read() as tx:
            rows = tx.execute(query.order_by(None).order_by(table.c.seq).limit(limit))
            return arrays.fold(tx, [read_job(row) for row in rows])

    @override
    def first_queued(self, array: str) -> Job | None:
        is_queued = (table.c.array == array, table.c.state == State.QUEUED.value)
        query = select(table).where(*is_queued).order_by(table.c.seq).limit(1)
        with self._db.read() as tx:
            row = tx.execute(query).first()
        return None if row is None else read_job(row)

    @override
    def users_of(self, artifact: str) -> Sequence[Job | Service | Replica]:
        query = select(table).where(
            table.c.state.not_in(ENDED_STATES),
            table.c.spec.contains(artifact, autoescape=True),
        )
        with self._db.read() as tx:
            rows = tx.execute(query.order_by(table.c.seq)).all()
        return [READERS[row.kind](row) for row in rows]

    @override
    def drop_leases(self, owner: str) -> None:
        change = update(table).where(table.c.lease_owner == owner).values(**NO_LEASE)
        with self._db.write() as tx:
            tx.execute(change)

    @override
    def claim(
        self, states: Sequence[State], *, owner: str, now: float, lease_s: float
    ) -> Sequence[tuple[WorkloadId, str]]:
        claimable = leases.claimable(states, now)
        with self._db.read() as tx:
            if not tx.execute(select(table.c.id).where(claimable).limit(1)).first():
                return []
        with self._db.write() as tx:
            return leases.claim(tx, claimable, owner, now + lease_s)

    @override
    def renew(self, owner: str, *, now: float, lease_s: float) -> None:
        with self._db.write() as tx:
            tx.execute(
                update(table)
                .where(table.c.lease_owner == owner, table.c.state.not_in(ENDED_STATES))
                .values(lease_until=now + lease_s)
            )

    @override
    def leased(self, owner: str) -> Mapping[WorkloadId, tuple[str, State]]:
        query = select(table.c.id, table.c.lease_token, table.c.state)
        with self._db.read() as tx:
            rows = tx.execute(query.where(table.c.lease_owner == owner)).all()
        return {WorkloadId(ident): (token, State(state)) for ident, token, state in rows}

    @override
    def release(self, ident: WorkloadId, token: str) -> None:
        change = update(table).where(table.c.id == ident, table.c.lease_token == token)
        with self._db.write() as tx:
            tx.execute(change.values(**NO_LEASE))

    @override
    def place(self, ident: WorkloadId, grants: Sequence[Grant], *, now: float) -> int | None:
        change = update(table).where(table.c.id == ident, table.c.state == State.QUEUED.value)
        change = change.values(state=State.PLACED.value, epoch=table.c.epoch + 1)
        with self._db.write() as tx:
            epoch = tx.execute(change.returning(table.c.epoch)).scalar()
            if epoch is not None:
                allocations.allocate(tx, ident, epoch, grants, now)
            return epoch

    @override
    def regrant(
        self, ident: WorkloadId, token: str, grants: Sequence[Grant], *, now: float
    ) -> int | None:
        change = under_lease(ident, token).values(epoch=table.c.epoch + 1)
        with self._db.write() as tx:
            epoch = tx.execute(change.returning(table.c.epoch)).scalar()
            if epoch is not None:
                allocations.free(tx, ident, now)
                allocations.allocate(tx, ident, epoch, grants, now)
            return epoch

    @override
    def requeue(self, ident: WorkloadId, token: str, status: Status, *, now: float) -> bool:
        change = under_lease(ident, token).where(table.c.state != State.STOPPING.value)
        change = change.values(state=State.QUEUED.value, status=to_text(status), **NO_LEASE)
        with self._db.write() as tx:
            changed = tx.execute(change).rowcount == 1
            if changed:
                _release(tx, ident, now)
            return changed

    @override
    def end(
        self, ident: WorkloadId, token: str, state: State, status: Status, *, now: float
    ) -> bool:
        change = under_lease(ident, token).values(state=state.value, status=to_text(status))
        with self._db.write() as tx:
            changed = tx.execute(change.values(ended_at=now, **NO_LEASE)).rowcount == 1
            if changed:
                _release(tx, ident, now)
            return changed

    @override
    def held(self, ident: WorkloadId) -> Sequence[HeldDevices]:
        with self._db.read() as tx:
            return allocations.history(tx, ident)

    @override
    def allocations(self) -> Mapping[WorkloadId, Allocation]:
        with self._db.read() as tx:
            return allocations.current(tx)


def _release(tx: Connection, ident: WorkloadId, now: float) -> None:
    """Free what a workload holds; what it was asked to change is void."""
    allocations.free(tx, ident, now)
    tx.execute(delete(targets).where(targets.c.workload == ident))
