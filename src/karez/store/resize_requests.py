"""Sizes that running gangs were asked to take."""

from collections.abc import Sequence

from sqlalchemy import delete, select

from karez.core.codec import from_text, to_text
from karez.core.resources import Grant
from karez.core.workloads import WorkloadId
from karez.store.database import Database
from karez.store.schema import targets as table


class ResizeRequests:
    """See core.stores.TargetStore."""

    def __init__(self, db: Database) -> None:
        """Over an open database."""
        self._db = db

    def request(self, ident: WorkloadId, grants: Sequence[Grant]) -> None:
        """See the contract."""
        body = "[" + ",".join(to_text(grant) for grant in grants) + "]"
        query = self._db.into(table).values(workload=ident, grants=body)
        query = query.on_conflict_do_update(
            index_elements=["workload"], set_={"grants": query.excluded.grants}
        )
        with self._db.write() as tx:
            tx.execute(query)

    def requested(self, ident: WorkloadId) -> Sequence[Grant] | None:
        """See the contract."""
        with self._db.read() as tx:
            body = tx.execute(select(table.c.grants).where(table.c.workload == ident)).scalar()
        return None if body is None else from_text(tuple[Grant, ...], body)

    def drop(self, ident: WorkloadId) -> None:
        """See the contract."""
        with self._db.write() as tx:
            tx.execute(delete(table).where(table.c.workload == ident))
