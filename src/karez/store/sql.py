"""The store over SQL."""

from sqlalchemy import text

from karez.store.artifacts import Artifacts
from karez.store.books import Books
from karez.store.database import Database
from karez.store.history import History
from karez.store.people import People
from karez.store.pool import Pool
from karez.store.targets import Targets
from karez.store.workloads import Workloads


class SqlStore:
    """core.stores.Store on SQLite or PostgreSQL. Threads may share it."""

    def __init__(self, url: str) -> None:
        """Open and migrate. Raises StartFailed if the database does not answer."""
        self.db = Database(url)
        self.db.migrate()
        self.workloads = Workloads(self.db)
        self.pool = Pool(self.db)
        self.history = History(self.db)
        self.artifacts = Artifacts(self.db)
        self.people = People(self.db)
        self.books = Books(self.db)
        self.targets = Targets(self.db)

    def ping(self) -> None:
        """See the contract."""
        with self.db.read() as tx:
            tx.execute(text("SELECT 1"))

    def close(self) -> None:
        """See the contract."""
        self.db.close()
