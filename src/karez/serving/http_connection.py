"""The gateway's side of a caller's HTTP/1.1 connection: requests in, answers out, limits on both.

A request is parsed by llhttp, which refuses what could be read in two ways (a length beside chunks,
two lengths, line ends of other kinds). Answers leave in the order of their requests.
"""

import asyncio
from collections import deque
from typing import Any

import httptools
import structlog
from typing_extensions import override

from karez.serving import answers
from karez.serving.address_ranges import plain_address
from karez.serving.answers import Refusal
from karez.serving.http_request import (
    MAX_HEAD_BYTES,
    Application,
    Exchange,
    Request,
    check_sizes,
    large_body,
    large_head,
    largest,
)

log = structlog.get_logger()

MAX_PIPELINED = 8
"""Requests that wait on one connection for the answer to the one before."""
REQUEST_S, BODY_S, IDLE_S = 15.0, 120.0, 75.0
"""Longest time for the head of a request, for all of it, and between two of them."""
LEAST_BYTES_PER_S = 64 << 10
"""Least rate at which a file has to come."""
LINGER_S = 2.0
"""How long the rest of a refused request is read and dropped, so that its caller sees why."""


class HttpConnection(asyncio.Protocol):
    """One connection of a caller."""

    def __init__(
        self,
        app: "Application[HttpConnection]",
        connections: "set[HttpConnection]",
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Serve requests to an application; `connections` has all that are open."""
        self._app, self._connections, self._loop = app, connections, loop
        self._transport: Any = None
        self._parser: Any = None
        self._request = Request()
        self._url, self._peer = b"", ""
        self._head_bytes = self._header_bytes = 0
        self._in_body = False
        self._waiting: deque[Request] = deque()
        self._current: Request | None = None
        self._exchange: Exchange | None = None
        self._is_streaming = self._is_dropping = self._is_begun = self._is_paused = False
        self._since = loop.time()
        """When what is awaited now began to be."""

    # the transport's side

    @override
    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._peer = plain_address(peer[0]) if isinstance(peer, tuple) and peer else ""
        self._parser = httptools.HttpRequestParser(self)
        self._connections.add(self)

    @override
    def data_received(self, data: bytes) -> None:
        if self._is_dropping:
            return
        if not self._is_begun and self._current is None:
            self._is_begun, self._since = True, self._loop.time()
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            self._ignore_upgrade(data[error.args[0] :])
        except httptools.HttpParserCallbackError:
            log.exception("gateway.request-failed")
            self._transport.abort()
        except httptools.HttpParserError as error:
            self._refuse_rest(Refusal(400, "invalid_request_error", f"Not HTTP/1.1: {error}."))
        else:
            if not self._in_body and self._head_bytes > MAX_HEAD_BYTES:
                self._refuse_rest(large_head())

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read on as if no other protocol had been offered (RFC 9110, section 7.8)."""
        request, self._parser = self._request, httptools.HttpRequestParser(self)
        if request.refusal is not None:
            return
        kept = {**request.headers, b"connection": b"keep-alive"}
        kept.pop(b"upgrade", None)
        lines = b"".join([b"%s: %s\r\n" % pair for pair in kept.items()])
        method = request.method.encode("latin-1")
        self.data_received(b"%s %s HTTP/1.1\r\n%s\r\n%s" % (method, self._url, lines, rest))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        for request in (*self._waiting, self._request):
            request.drop_body()
        self._waiting.clear()
        self._request = Request()
        self._is_dropping = True
        exchange, self._exchange, self._current = self._exchange, None, None
        self._parser = None
        if exchange is not None:
            exchange.gone()

    @override
    def pause_writing(self) -> None:
        self._is_paused, self._since = True, self._loop.time()
        self._transport.pause_reading()
        if self._exchange is not None:
            self._exchange.paused(True)

    @override
    def resume_writing(self) -> None:
        self._is_paused, self._since = False, self._loop.time()
        if len(self._waiting) < MAX_PIPELINED:
            self._transport.resume_reading()
        if self._exchange is not None:
            self._exchange.paused(False)
        self._begin_next()

    # the parser's side

    def on_message_begin(self) -> None:
        """A request begins."""
        self._request, self._url, self._header_bytes = Request(address=self._peer), b"", 0

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; what follows a body in chunks is none."""
        if self._in_body:
            return
        self._header_bytes += len(name) + len(value) + 4
        self._request.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The head is there: the key is checked before a body is read."""
        request, self._in_body = self._request, True
        request.method = self._parser.get_method().decode("latin-1")
        if self._parser.should_upgrade() and request.method != "CONNECT":
            self._in_body = False
            return  # _ignore_upgrade reads it again
        request.path, _, request.query = self._url.decode("latin-1").partition("?")
        request.keeps_alive = self._parser.should_keep_alive()
        request.has_chunks = self._parser.get_http_version() != "1.0"
        try:
            check_sizes(request, self._header_bytes + len(self._url))
            self._app.check(request)
        except Refusal as refusal:
            self._give_up(request, refusal)
            return
        if request.headers.get(b"expect", b"").lower() == b"100-continue" and not self._current:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        request = self._request
        if request.refusal is not None:
            return
        if request.spool is None:
            request.body += body
            size = len(request.body)
        else:
            request.spool.write(body)
            size = request.spool.tell()
        if size > largest(request):
            self._give_up(request, large_body(request))

    def on_message_complete(self) -> None:
        """A request is there."""
        request = self._request
        self._in_body, self._head_bytes = False, 0
        if request.refusal is not None or self._is_dropping or not request.path:
            return  # it was queued for its refusal already, or is read again
        self._is_begun = False
        self._queue(request)

    # requests and answers

    def _give_up(self, request: Request, refusal: Refusal) -> None:
        """Refuse a request whose rest is not read: the connection ends with it."""
        request.refusal, request.keeps_alive = refusal, False
        request.drop_body()
        self._queue(request)

    def _queue(self, request: Request) -> None:
        self._waiting.append(request)
        if len(self._waiting) >= MAX_PIPELINED:
            self._transport.pause_reading()
        self._begin_next()

    def _begin_next(self) -> None:
        """Begin what waits, once the answer before it is written and has gone out."""
        if self._waiting and self._current is None and not self._is_paused:
            following = self._waiting.popleft()
            if len(self._waiting) == MAX_PIPELINED - 1:
                self._transport.resume_reading()
            self._begin(following)

    def _begin(self, request: Request) -> None:
        if self._is_dropping:
            return
        self._current = request
        try:
            if request.refusal is not None:
                raise request.refusal
            exchange = self._app.begin(request, self)
        except Refusal as refusal:
            self._app.refused(request, refusal)
            self.refuse(refusal)
            return
        if self._current is request:
            self._exchange = exchange
            if self._is_paused and exchange is not None:
                exchange.paused(True)

    def answer(self, status: int, kind: bytes, data: bytes, headers: bytes = b"") -> None:
        """Send a whole answer, which ends the exchange."""
        self._send(answers.whole(status, kind, data, headers, closes=self._closes))
        self._end()

    def refuse(self, refusal: Refusal) -> None:
        """Send an error, which ends the exchange."""
        path = "" if self._current is None else self._current.path
        self._send(answers.refused(refusal, path, closes=self._closes))
        self._end()

    def start(self, status: int, kind: bytes, headers: bytes) -> None:
        """Send the head of an answer that comes in pieces."""
        request = self._current
        if request is None:
            return
        ends_with_connection = not request.has_chunks
        request.keeps_alive = request.keeps_alive and request.has_chunks
        first = answers.head(status, kind, headers, closes=self._closes)
        self._is_streaming = not ends_with_connection
        self._send(
            first + (b"\r\n" if ends_with_connection else b"transfer-encoding: chunked\r\n\r\n")
        )

    def piece(self, data: bytes) -> None:
        """Send a piece of an answer."""
        if data:
            self._send(answers.chunk(data) if self._is_streaming else data)

    def finish(self) -> None:
        """End an answer that came in pieces."""
        if self._is_streaming:
            self._send(answers.LAST_CHUNK)
        self._end()

    @property
    def _closes(self) -> bool:
        return self._current is None or not self._current.keeps_alive

    def _send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _end(self) -> None:
        request, self._current, self._exchange = self._current, None, None
        self._is_streaming = False
        self._since = self._loop.time()
        if request is None or not request.keeps_alive:
            self._linger()
        elif self._waiting:
            self._loop.call_soon(self._begin_next)

    def _refuse_rest(self, refusal: Refusal) -> None:
        """Refuse bytes that are no request, once what came before them is answered."""
        self._is_begun = False
        if self._request.refusal is None:
            self._give_up(Request(method="", path=""), refusal)

    def _linger(self) -> None:
        """Close once the caller has had the time to read the answer."""
        if self._is_dropping:
            return
        self._is_dropping, self._since = True, self._loop.time()
        self._transport.resume_reading()  # what is read is dropped
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._loop.call_later(LINGER_S, self._abort_once_read)

    def _abort_once_read(self) -> None:
        """Close once the answer has gone out, and its reader had time since."""
        late = self._loop.time() - self._since > BODY_S
        if late or self._transport.is_closing() or not self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._loop.call_later(LINGER_S, self._abort_once_read)

    @property
    def _body_s(self) -> float:
        """How long all of a body may take; a file has time by what has come of it."""
        spool = self._request.spool
        return BODY_S + (0 if spool is None else spool.tell() / LEAST_BYTES_PER_S)

    def close_if_idle(self) -> bool:
        """Close unless a request is answered; returns whether one is."""
        is_busy = self._current is not None or self._transport.get_write_buffer_size() > 0
        if not is_busy:
            self._transport.close()
        return is_busy

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def drop_if_late(self, now: float) -> None:
        """Drop a caller that does not send what it began, or has been silent for long."""
        if self._is_dropping or self._current is not None:
            return
        if self._is_paused:
            limit = BODY_S
        else:
            limit = (self._body_s if self._in_body else REQUEST_S) if self._is_begun else IDLE_S
        if now - self._since > limit:
            self._transport.abort()
