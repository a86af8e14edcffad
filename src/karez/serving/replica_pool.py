"""The connections of a gateway process to one replica, and how busy it is."""

import asyncio
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from karez.serving.replica_connection import IDLE_S, Listener, ReplicaConnection
from karez.serving.rows import HELD, Rows, own_rows

CONNECT_S = 5.0


@dataclass(slots=True, eq=False)
class ReplicaPool:
    """The connections to one replica."""

    url: str
    key: str
    """Which the replica awaits."""
    loop: asyncio.AbstractEventLoop
    rows: Rows = field(default_factory=lambda: own_rows((), HELD))
    """The first cell has the requests that the replica works on."""
    answered: int = 0
    failed: int = 0
    answer_s: float = 0.0
    """As in a core.routing.ReplicaLoad."""
    avoid_until: float = 0.0
    """It failed of late: others are asked first until then, by the loop's clock."""
    _heads: dict[str, bytes] = field(default_factory=dict)
    _idle: list[ReplicaConnection] = field(default_factory=list)
    _connecting: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def inflight(self) -> int:
        """Requests that the replica works on for this process."""
        return self.rows.mine[0]

    @inflight.setter
    def inflight(self, count: int) -> None:
        self.rows.mine[0] = count

    @property
    def load(self) -> int:
        """Requests that it works on for all processes of the gateway."""
        return self.rows.mine[0] + sum(cells[0] for cells in self.rows.others)

    def saw(self, seconds: float, *, is_failure: bool) -> None:
        """Count a request that has ended here."""
        self.answered += 1
        self.failed += is_failure
        self.answer_s += seconds

    def head(self, path: str) -> bytes:
        """The beginning of the head of requests to a path."""
        found = self._heads.get(path)
        if found is None:
            host = self.url.partition("://")[2]
            found = self._heads[path] = (
                f"POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {self.key}\r\n"
                "content-type: application/json\r\n"
            ).encode()
        return found

    def send(
        self,
        data: bytes,
        listener: Listener,
        *,
        afresh: bool = False,
    ) -> None:
        """Send a request on a connection, or on a new one if `afresh`."""
        while self._idle and not afresh:
            connection = self._idle.pop()
            if connection.is_usable:
                if listener.connected(connection):
                    connection.send(data, listener)
                return
            connection.close()
        task = self.loop.create_task(self._connect(data, listener))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, data: bytes, listener: Listener) -> None:
        try:
            parts = urlsplit(self.url)
            async with asyncio.timeout(CONNECT_S):
                _, connection = await self.loop.create_connection(
                    lambda: ReplicaConnection(self), parts.hostname or "", parts.port or 80
                )
        except (OSError, TimeoutError, ValueError) as error:
            listener.lost(type(error).__name__, is_stale=False)
            return
        if listener.connected(connection):
            connection.send(data, listener)
        else:
            connection.close()

    def keep(self, connection: ReplicaConnection) -> None:
        """Keep a connection for the next request."""
        self._idle.append(connection)

    def forget(self, connection: ReplicaConnection) -> None:
        """Forget a connection that is closed."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close_idle(self, *, older_than_s: float = IDLE_S) -> None:
        """Close connections that nothing was sent on for a while."""
        now = self.loop.time()
        for connection in [one for one in self._idle if now - one.heard_at >= older_than_s]:
            self._idle.remove(connection)
            connection.close()
