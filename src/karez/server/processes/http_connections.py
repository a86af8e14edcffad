"""Connections of the HTTP servers: one that sends no whole request for a while is dropped."""

import asyncio
from typing import Any

from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 15.0
"""Longest time, in seconds, from the first bytes of a connection or request to its whole head."""
MAX_CONNECTIONS = 4096
"""Connections and requests at once; beyond them the answer is 503."""


class TimedProtocol(H11Protocol):
    """HTTP/1.1 whose callers have a limited time for the head of a request."""

    _dropping: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_request()

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._expect_request()
        else:
            self._expect_nothing()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        super().connection_lost(exc)

    def _expect_request(self) -> None:
        if self._dropping is None:
            self._dropping = self.loop.call_later(REQUEST_S, self._drop)

    def _expect_nothing(self) -> None:
        if self._dropping is not None:
            self._dropping.cancel()
            self._dropping = None

    def _drop(self) -> None:
        self._dropping = None
        self.transport.abort()
