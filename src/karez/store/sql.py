"""The store over SQL."""

from sqlalchemy import text

from karez.store.books import BookTable
from karez.store.database import Database
from karez.store.workloads import WorkloadTable


class SqlStore(WorkloadTable, BookTable):
    """core.ports.Store on SQLite or PostgreSQL. Threads may share it."""

    def __init__(self, url: str) -> None:
        """Open and migrate. Raises StartFailed if the database does not answer."""
        self.db = Database(url)
        self.db.migrate()

    def ping(self) -> None:
        """See Store."""
        with self.db.read() as tx:
            tx.execute(text("SELECT 1"))

    def close(self) -> None:
        """See Store."""
        self.db.close()
