"""The whole store on one SQL database."""

from sqlalchemy import text
from typing_extensions import override

from karez.core.stores.store import Store
from karez.store.access import Access
from karez.store.alerts import Alerts
from karez.store.artifacts import Artifacts
from karez.store.database import Database
from karez.store.history import History
from karez.store.nodes import Nodes
from karez.store.replicas import Replicas
from karez.store.resize_requests import ResizeRequests
from karez.store.scheduler import SchedulerState
from karez.store.usage import Usage
from karez.store.workloads import Workloads


class SqlStore(Store):
    """All stores on SQLite or PostgreSQL. Threads may share it."""

    def __init__(self, url: str) -> None:
        """Open and migrate. Raises StartFailed if the database does not answer."""
        self.db = Database(url)
        self.db.migrate()
        self.workloads = Workloads(self.db)
        self.replicas = Replicas(self.db)
        self.pool = Nodes(self.db)
        self.history = History(self.db)
        self.artifacts = Artifacts(self.db)
        self.access = Access(self.db)
        self.usage = Usage(self.db)
        self.alerts = Alerts(self.db)
        self.resize_requests = ResizeRequests(self.db)
        self.scheduler = SchedulerState(self.db)

    @override
    def ping(self) -> None:
        with self.db.read() as tx:
            tx.execute(text("SELECT 1"))

    @override
    def close(self) -> None:
        self.db.close()
