"""Store of replicas, whose rows are beside those of jobs and services."""

from collections.abc import Sequence

from sqlalchemy import Connection, Update, func, insert, select, update
from typing_extensions import override

from karez.core.codec import to_text
from karez.core.services import Replica, Service, ServiceSpec, replica_id
from karez.core.stores.replicas import ReplicaStore
from karez.core.workloads import ENDED, LIVE, State, Status, WorkloadId
from karez.store.database import Database
from karez.store.schema import workloads as table
from karez.store.workload_rows import ENDED_STATES, read_replica, row_values

LIVE_STATES = [state.value for state in LIVE]
MOST_LOOKED_AT = 100
"""Replicas among which one of an older specification is looked for, the newest ones."""


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
        mine = [table.c.kind == "replica"]
        if service:
            mine.append(table.c.array == service)
        if projects is not None:
            mine.append(table.c.project.in_(projects))
        live = select(table).where(*mine, table.c.state.in_(LIVE_STATES))
        ended = select(table).where(*mine, table.c.ended_at >= ended_since)
        with self._db.read() as tx:  # two queries, each by its index: most replicas ended long ago
            rows = {row.seq: row for query in (live, ended) for row in tx.execute(query)}
        return [read_replica(rows[seq]) for seq in sorted(rows)]

    @override
    def last_started(self, service: WorkloadId, unlike: ServiceSpec) -> Replica | None:
        query = select(table).where(
            table.c.kind == "replica", table.c.array == service, table.c.started_at.is_not(None)
        )
        with self._db.read() as tx:
            rows = tx.execute(query.order_by(table.c.seq.desc()).limit(MOST_LOOKED_AT)).all()
        found = (read_replica(row) for row in rows)
        return next((one for one in found if not one.spec.runs_as(unlike)), None)

    @override
    def measured(self) -> Sequence[Replica]:
        query = select(table).where(table.c.kind == "replica", table.c.started_at.is_not(None))
        with self._db.read() as tx:
            rows = tx.execute(query.order_by(table.c.seq.desc()).limit(MOST_LOOKED_AT)).all()
        return [one for one in map(read_replica, rows) if one.status.memory_bytes]

    @override
    def note_service(self, service: Service, state: State, status: Status, *, at: float) -> bool:
        change = _live_service(service)
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
    def set_spec(
        self, service: Service, spec: ServiceSpec, status: Status, *, at: float | None
    ) -> bool:
        values: dict[str, object] = {"spec": to_text(spec), "priority": spec.priority}
        values |= {"epoch": table.c.epoch + 1, "status": to_text(status)}
        if at is not None:
            values["updated_at"] = at
        change = _live_service(service).where(table.c.state != State.STOPPING.value)
        with self._db.write() as tx:
            return tx.execute(change.values(**values)).rowcount == 1


def _live_service(service: Service) -> Update:
    """UPDATE of a service that has not ended, and is what it was when it was read."""
    return update(table).where(
        table.c.id == service.id,
        table.c.kind == "service",
        table.c.epoch == service.revision,
        table.c.state.not_in(ENDED_STATES),
    )


def _next_number(tx: Connection, service: WorkloadId) -> int:
    query = select(func.max(table.c.array_index)).where(
        table.c.array == service, table.c.kind == "replica"
    )
    last = tx.execute(query).scalar()
    return 0 if last is None else int(last) + 1
