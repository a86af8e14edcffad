"""Store of the scheduler's own state."""

from sqlalchemy import select
from typing_extensions import override

from karez.core.stores.scheduler import SchedulerStore
from karez.store.database import Database
from karez.store.schema import scheduler_state as table

PENDING = "pending-decisions"


class SchedulerState(SchedulerStore):
    """Documents of the scheduler in SQL, by name."""

    def __init__(self, db: Database) -> None:
        """Keep them in an open database."""
        self._db = db

    @override
    def pending_decisions(self) -> str:
        with self._db.read() as tx:
            return tx.execute(select(table.c.body).where(table.c.name == PENDING)).scalar() or ""

    @override
    def save_pending_decisions(self, text: str) -> None:
        query = self._db.into(table).values(name=PENDING, body=text)
        query = query.on_conflict_do_update(
            index_elements=["name"], set_={"body": query.excluded.body}
        )
        with self._db.write() as tx:
            tx.execute(query)
