"""Store of replicas, whose rows are beside those of jobs and services."""

from collections.abc import Sequence

from sqlalchemy import Connection, Update, func, insert, or_, select, update
from typing_extensions import override

from karez.core.codec import to_text
from karez.core.services import Replica, Service, ServiceSpec, replica_id
from karez.core.stores.replicas import ReplicaStore
from karez.core.workloads import ENDED, State, Status, WorkloadId
from karez.store.database import Database
from karez.store.schema import workloads as table
from karez.store.workload_rows import ENDED_STATES, read_replica, row_values


class Replicas(ReplicaStore):
    """Replicas in SQL: each is a row of its own, and names its service where a job has an array."""

    def __init__(self, db: Database) -> None:
        """Keep replicas in an open database."""
        self._db = db

    @override
    def add(self, service: Service, count: int, *, now: float) -> Sequence[Replica]:
        with self._db.write() as tx:
            state = tx.execute(select(table.c.state).where(table.c.id == service.id)).scalar()
            if state in (None, State.STOPPING.value, *ENDED_STATES) or count < 1:
                return []
            first = _next_number(tx, service.id)
            made = [
                Replica(
                    id=replica_id(service.id, number),
                    service=service.id,
                    number=number,
                    spec=service.spec,
                    owner=service.owner,
                    created_at=now,
                )
                for number in range(first, first + count)
            ]
            last = self._db.next_number(tx, "workloads", count)
            rows = [
                {"seq": seq, **row_values("replica", one)}
                for seq, one in enumerate(made, last - count + 1)
            ]
            tx.execute(insert(table), rows)
            return made

    @override
    def live(
        self, *, service: str = "", projects: Sequence[str] | None = None, ended_since: float
    ) -> Sequence[Replica]:
        is_live = table.c.state.not_in(ENDED_STATES)
        query = select(table).where(
            table.c.kind == "replica", or_(is_live, table.c.ended_at >= ended_since)
        )
        if service:
            query = query.where(table.c.array == service)
        if projects is not None:
            query = query.where(table.c.project.in_(projects))
        with self._db.read() as tx:
            return [read_replica(row) for row in tx.execute(query.order_by(table.c.seq))]

    @override
    def last_started(self, service: WorkloadId) -> Replica | None:
        query = select(table).where(
            table.c.kind == "replica", table.c.array == service, table.c.started_at.is_not(None)
        )
        with self._db.read() as tx:
            row = tx.execute(query.order_by(table.c.seq.desc()).limit(1)).first()
        return None if row is None else read_replica(row)

    @override
    def note_service(self, ident: WorkloadId, state: State, status: Status, *, at: float) -> bool:
        change = _live_service(ident)
        values: dict[str, object] = {"state": state.value, "status": to_text(status)}
        values["wait_reason"] = ""
        if state in ENDED:
            values["ended_at"] = at
        else:
            change = change.where(table.c.state != State.STOPPING.value)
            if state == State.RUNNING:
                values["started_at"] = func.coalesce(table.c.started_at, at)
        with self._db.write() as tx:
            return tx.execute(change.values(**values)).rowcount == 1

    @override
    def set_spec(self, ident: WorkloadId, spec: ServiceSpec) -> bool:
        change = _live_service(ident).where(table.c.state != State.STOPPING.value)
        change = change.values(spec=to_text(spec), priority=spec.priority)
        with self._db.write() as tx:
            return tx.execute(change).rowcount == 1


def _live_service(ident: WorkloadId) -> Update:
    return update(table).where(
        table.c.id == ident, table.c.kind == "service", table.c.state.not_in(ENDED_STATES)
    )


def _next_number(tx: Connection, service: WorkloadId) -> int:
    query = select(func.max(table.c.array_index)).where(
        table.c.array == service, table.c.kind == "replica"
    )
    last = tx.execute(query).scalar()
    return 0 if last is None else int(last) + 1
