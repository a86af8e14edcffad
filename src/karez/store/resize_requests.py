"""Store of resize requests."""

from collections.abc import Sequence

from sqlalchemy import delete, select
from typing_extensions import override

from karez.core.codec import from_text
from karez.core.grants import Grant
from karez.core.stores.resize_requests import ResizeRequestStore
from karez.core.workloads import WorkloadId
from karez.store.allocations import Grants, grants_text
from karez.store.database import Database
from karez.store.schema import targets as table


class ResizeRequests(ResizeRequestStore):
    """Resize requests in SQL, at most one for each gang."""

    def __init__(self, db: Database) -> None:
        """Keep resize requests in an open database."""
        self._db = db

    @override
    def request(self, ident: WorkloadId, grants: Sequence[Grant]) -> None:
        body = grants_text(grants)
        query = self._db.into(table).values(workload=ident, grants=body)
        query = query.on_conflict_do_update(
            index_elements=["workload"], set_={"grants": query.excluded.grants}
        )
        with self._db.write() as tx:
            tx.execute(query)

    @override
    def requested(self, ident: WorkloadId) -> Sequence[Grant] | None:
        with self._db.read() as tx:
            body = tx.execute(select(table.c.grants).where(table.c.workload == ident)).scalar()
        return None if body is None else from_text(Grants, body)

    @override
    def take(self, ident: WorkloadId) -> Sequence[Grant] | None:
        if self.requested(ident) is None:  # most looks find none, and write nothing
            return None
        gone = delete(table).where(table.c.workload == ident).returning(table.c.grants)
        with self._db.write() as tx:
            body = tx.execute(gone).scalar()
        return None if body is None else from_text(Grants, body)

    @override
    def ids(self) -> frozenset[WorkloadId]:
        with self._db.read() as tx:
            return frozenset(map(WorkloadId, tx.execute(select(table.c.workload)).scalars()))

    @override
    def drop(self, ident: WorkloadId) -> None:
        with self._db.write() as tx:
            tx.execute(delete(table).where(table.c.workload == ident))
