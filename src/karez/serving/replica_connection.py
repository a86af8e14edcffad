"""Connections of the gateway to replicas, which are kept and used again."""

import asyncio
from typing import Any, Protocol

import httptools
from typing_extensions import override

IDLE_S = 3.0
"""llama.cpp closes idle connections after 5 s: they are let go of before it does."""


class Listener(Protocol):
    """What hears the answer of a replica."""

    def connected(self, connection: "ReplicaConnection") -> bool:
        """The connection that the request goes out on; returns whether it is still wanted."""

    def heard_head(self, status: int, kind: bytes) -> None:
        """Its status and content type."""

    def heard_body(self, data: bytes) -> None:
        """A piece of its body."""

    def heard_end(self) -> None:
        """The answer is whole."""

    def lost(self, trouble: str, is_stale: bool) -> None:
        """The connection broke before the end.

        `is_stale` tells that it had been used before and has brought nothing since.
        """


class Owner(Protocol):
    """Who keeps the connection for the next request."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that serves."""

    def keep(self, connection: "ReplicaConnection") -> None:
        """The connection awaits the next request."""

    def forget(self, connection: "ReplicaConnection") -> None:
        """The connection is closed."""


class ReplicaConnection(asyncio.Protocol):
    """One connection to a replica, on which one request at a time is answered."""

    def __init__(self, pool: Owner) -> None:
        """Belong to a pool."""
        self._pool = pool
        self._transport: Any = None
        self._listener: Listener | None = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._kind = b""
        self._is_used = self._has_answer = self._has_head = self._is_framed = False
        self._is_interim = self._is_paused = False
        self.heard_at = 0.0
        """When the replica was heard last, or a request was sent, by the loop's clock."""

    def send(self, data: bytes, listener: Listener) -> None:
        """Send a request, whose answer a listener hears."""
        self._kind = b"application/json"
        self._has_answer = self._has_head = self._is_framed = False
        self._listener = listener
        self.heard_at = self._pool.loop.time()
        self._transport.write(data)

    @property
    def is_usable(self) -> bool:
        """Whether the replica still awaits requests on it."""
        silent_s = self._pool.loop.time() - self.heard_at
        return silent_s < IDLE_S and not self._transport.is_closing()

    def pause(self, is_paused: bool) -> None:
        """Stop to read from the replica, or go on."""
        if self._transport.is_closing():
            return
        self._is_paused = is_paused
        if is_paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def close(self) -> None:
        """Close: an engine stops to compute for a caller that is gone."""
        self._listener = None
        if self._transport is not None:
            self._transport.close()

    @override
    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        if self._listener is None:
            self._transport.close()  # nobody asked
            return
        self.heard_at = self._pool.loop.time()
        self._has_answer = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._lose(f"no HTTP: {error}")

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.forget(self)
        if self._listener is None:
            return
        if self._has_head and not self._is_framed and exc is None:
            self._finish()  # an answer without a length ends with its connection
        else:
            self._lose("the connection broke" if exc is None else type(exc).__name__)

    def on_message_begin(self) -> None:
        """An answer begins; one that nobody asked for ends the connection."""
        if self._listener is None:
            self._transport.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        name = name.lower()
        if name == b"content-type":
            self._kind = value
        elif name in (b"content-length", b"transfer-encoding"):
            self._is_framed = True

    def on_headers_complete(self) -> None:
        """The head is there; one of 1xx only announces another."""
        status = self._parser.get_status_code()
        self._is_interim = 100 <= status < 200
        if self._listener is not None and not self._is_interim:
            self._has_head = True
            self._listener.heard_head(status, self._kind)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self._listener is not None:
            self._listener.heard_body(body)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if not self._is_interim:
            self._finish()

    def _finish(self) -> None:
        listener, self._listener = self._listener, None
        if listener is None or self._transport.is_closing():
            self._transport.close()
        elif self._parser.should_keep_alive() and self._is_framed:
            self._is_used = True
            if self._is_paused:
                self.pause(False)
            self._pool.keep(self)
        else:
            self._transport.close()
        if listener is not None:
            listener.heard_end()

    def _lose(self, trouble: str) -> None:
        listener, self._listener = self._listener, None
        self._transport.close()
        if listener is not None:
            listener.lost(trouble, is_stale=self._is_used and not self._has_answer)
