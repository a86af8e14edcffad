"""Requests that the gateway passes on to control: files and batches, which control keeps."""

import asyncio
import contextlib
import tempfile
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit
from weakref import WeakSet

import httptools
import structlog

from karez.core.identity import Role, includes
from karez.serving.answers import JSON, Refusal
from karez.serving.http_connection import HttpConnection
from karez.serving.http_request import Exchange, Request
from karez.serving.relay_counts import RelayCounts

log = structlog.get_logger()

HELD_BYTES: Final = 1 << 20
"""Bytes of a body that are held in memory; a larger one is on the disk until it is passed on."""
MOST, MOST_OF_A_KEY = 64, 8
"""Requests that are passed on at once, or whose bodies come."""
PIECE_BYTES: Final = 64 << 10
CONNECT_S, SILENT_S = 5.0, 120.0
_TOLD: Final = (b"content-type", b"x-request-id", b"idempotency-key")
"""Headers of the caller that control is told."""


def take_body(request: Request, open_ones: "WeakSet[Request]") -> None:
    """Have the body of a request put aside, which is passed on beside others. Raises Refusal."""
    key = request.key
    assert key is not None
    if request.method != "GET" and not includes(key.role, Role.MEMBER):
        raise Refusal(403, "permission_error", f"A {key.role} may read files and batches only.")
    own = sum(one.key is not None and one.key.counts_as == key.counts_as for one in open_ones)
    if len(open_ones) >= MOST or own >= MOST_OF_A_KEY:
        most = MOST_OF_A_KEY if own >= MOST_OF_A_KEY else MOST
        message = f"{most} requests for files and batches are on their way."
        raise Refusal(429, "rate_limit_error", message, 1)
    request.spool = tempfile.SpooledTemporaryFile(HELD_BYTES)  # noqa: SIM115 - the passage closes it
    open_ones.add(request)


def _authorization(request: Request) -> bytes:
    own = request.headers.get(b"authorization")
    return own or b"Bearer " + request.headers.get(b"x-api-key", b"")


@dataclass(eq=False)
class Passage(Exchange):
    """One request on its way to control and back."""

    request: Request
    connection: HttpConnection
    control: str
    """URL of control's API for OpenAI's clients."""
    open_ones: "WeakSet[Request]"
    """All requests that are on their way."""
    counts: RelayCounts
    _task: "asyncio.Task[None] | None" = None
    _may_write: asyncio.Event = field(default_factory=asyncio.Event)
    _parser: Any = None
    _kind: bytes = JSON
    _more: bytes = b""
    _is_begun: bool = False
    _is_whole: bool = False
    _is_gone: bool = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin."""
        self._may_write.set()
        self._task = loop.create_task(self._run())

    def gone(self) -> None:
        """The caller has hung up."""
        self._is_gone = True
        if self._task is not None:
            self._task.cancel()

    def paused(self, is_paused: bool) -> None:
        """The caller reads slower than the answer comes, or has caught up."""
        if is_paused:
            self._may_write.clear()
        else:
            self._may_write.set()

    async def _run(self) -> None:
        is_done = False
        try:
            await self._pass_on()
            is_done = True
        except (OSError, TimeoutError, ValueError, httptools.HttpParserError) as error:
            log.warning("gateway.passage", path=self.request.path, why=repr(error))
        finally:
            self.open_ones.discard(self.request)
            if self.request.spool is not None:
                self.request.spool.close()
            if not is_done and not self._is_gone:
                self._fail()

    def _fail(self) -> None:
        """Tell the caller that there is no answer, or break off one that has begun."""
        if self._is_begun:
            self.connection.abort()
        else:
            self.counts.statuses[503] += 1
            message = "Control does not answer. Try again."
            self.connection.refuse(Refusal(503, "service_unavailable_error", message, 1))

    async def _pass_on(self) -> None:
        parts = urlsplit(self.control)
        self._parser = httptools.HttpResponseParser(self)
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        sending = asyncio.create_task(self._send(writer, parts.netloc, parts.path))
        try:
            await self._read(reader, sending)  # control may refuse before all is sent
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError, TimeoutError):
                await sending
            writer.transport.abort()
        self.connection.finish()

    async def _read(self, reader: asyncio.StreamReader, sending: "asyncio.Task[None]") -> None:
        """Pass the answer on to its end; while a body is sent, control may be silent."""
        while not self._is_whole:
            reading = asyncio.create_task(reader.read(PIECE_BYTES))
            try:
                if not sending.done():
                    await asyncio.wait({reading, sending}, return_when=asyncio.FIRST_COMPLETED)
                async with asyncio.timeout(SILENT_S):
                    data = await reading
                    if not data:
                        raise ConnectionResetError
                    self._parser.feed_data(data)
                    await self._may_write.wait()
            finally:
                reading.cancel()

    async def _send(self, writer: asyncio.StreamWriter, host: str, prefix: str) -> None:
        request, spool = self.request, self.request.spool
        assert spool is not None
        length = spool.tell()
        spool.seek(0)
        query = f"?{request.query}" if request.query else ""
        target = f"{prefix}{request.path.removeprefix('/v1')}{query}"
        headers = {
            b"host": host.encode(),
            b"authorization": _authorization(request),
            b"content-length": b"%d" % length,
            b"connection": b"close",
        }
        headers |= {name: request.headers[name] for name in _TOLD if name in request.headers}
        lines = b"".join(b"%s: %s\r\n" % pair for pair in headers.items())
        first = f"{request.method} {target} HTTP/1.1\r\n".encode("latin-1")
        writer.write(first + lines + b"\r\n")
        while piece := spool.read(PIECE_BYTES):
            writer.write(piece)
            async with asyncio.timeout(SILENT_S):
                await writer.drain()

    # the parser's side

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the answer."""
        if name.lower() == b"content-type":
            self._kind = value
        elif name.lower() == b"retry-after":
            self._more = b"retry-after: %s\r\n" % value

    def on_headers_complete(self) -> None:
        """The head of the answer."""
        self._is_begun, status = True, self._parser.get_status_code()
        self.counts.statuses[status] += 1
        self.connection.start(status, self._kind, self._more)

    def on_body(self, data: bytes) -> None:
        """A piece of the answer."""
        self.connection.piece(data)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self._is_whole = True
