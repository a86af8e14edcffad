"""One request on its way: to a replica, to another where one is lost, and the answer back.

A request that has brought nothing yet goes to the next replica. A stream whose replica is lost goes
on at another one with the prompt and the text that was sent, and waits for one if it has to.
"""

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from karez.core.ports import Clock
from karez.core.routing import GatewayKey, Route
from karez.core.usage import Call
from karez.serving.admission import Queue
from karez.serving.answers import ANTHROPIC_PATH, JSON, Refusal, problem
from karez.serving.http_connection import HttpConnection
from karez.serving.relay_counts import RelayCounts
from karez.serving.replica_connection import ReplicaConnection, ReplicaPool
from karez.serving.stream_log import CHAT, TEXT, EventReader, EventTooLarge, StreamLog
from karez.serving.token_usage import TokenUsage
from karez.serving.usage_spool import UsageSpool

GONE = 499
"""Status of a call whose caller hung up; nginx's name for it is "client closed request"."""
OK, UNAVAILABLE, BROKEN = 200, 503, 502
BUSY = (429, UNAVAILABLE)
TRIES = 3
"""Attempts to reach a replica before a request is refused."""
AVOID_S = 2.0
"""How long a replica that failed is asked after the others."""
TAKEOVER_S, TAKEOVER_PAUSE_S = 120.0, 0.25
"""How long a broken stream waits for a replica, and between two attempts."""
FIRST_S, SILENCE_S = 600.0, 120.0
"""Longest silence of a replica before its answer; within a stream, of it and of its caller."""
MAX_ANSWER_BYTES = 256 << 20


class Replicas(Protocol):
    """What a relay works with: the gateway."""

    spool: UsageSpool
    clock: Clock
    engine_key: str
    counts: RelayCounts
    relays: "set[Relay]"

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that serves."""

    def pool(self, url: str) -> ReplicaPool:
        """The connections to a replica."""

    def current_route(self, route: Route) -> Route | None:
        """What has become of a route since; None: its service is gone."""


@dataclass(slots=True, kw_only=True, eq=False)
class Relay:
    """One request."""

    replicas: Replicas
    caller: HttpConnection
    key: GatewayKey
    route: Route
    queue: Queue
    path: str
    request: dict[str, Any]
    arrived: float
    """When it was received, by the clock."""
    ident: str = field(default_factory=lambda: f"call-{secrets.token_hex(10)}")
    usage: TokenUsage = field(default_factory=TokenUsage)
    _log: StreamLog | None = None
    _reader: EventReader = field(default_factory=EventReader)
    _data: bytes = b""
    """The body for the replica."""
    _pool: ReplicaPool | None = None
    _connection: ReplicaConnection | None = None
    _timer: asyncio.TimerHandle | None = None
    _tries: int = 0
    _status: int = 0
    """Of the replica's answer; 0: it has not begun."""
    _kind: bytes = JSON
    _body: bytearray = field(default_factory=bytearray)
    _is_started: bool = False
    """Whether the caller has been sent the head of a stream."""
    _has_first: bool = False
    _give_up_at: float = 0.0
    """When to end a stream that finds no replica, by the loop's clock."""
    _sent_at: float = 0.0
    _paused_at: float | None = None
    """Since when the caller has not read what is there for it, by the loop's clock."""
    _is_over: bool = False

    def start(self) -> None:
        """Send the request to a replica."""
        self.queue.inflight += 1
        request = self.request
        request["model"] = self.route.service  # the engine knows no projects
        if request.get("stream") and self.path in (CHAT, TEXT):
            options = request.get("stream_options") or {}
            request["stream_options"] = {**options, "include_usage": True}
            wants_usage = bool(options.get("include_usage"))
        else:
            wants_usage = True
        if request.get("stream"):
            self._log = StreamLog(
                path=self.path, request=request, wants_usage=wants_usage, usage=self.usage
            )
        self._data = orjson.dumps(request)
        self._try()

    # where the request goes

    def _try(self, *, afresh: bool = False) -> None:
        self._timer = None
        urls = self.route.urls
        if self._tries or self._is_started:
            current = self.replicas.current_route(self.route)
            urls = () if current is None else current.urls
        if not urls:
            self._failed("no replica is ready")
            return
        now = self.replicas.loop.time()
        pools = [self.replicas.pool(url) for url in urls]
        pool = min(pools, key=lambda one: (one.avoid_until > now, one.inflight))
        self._pool = pool
        pool.inflight += 1
        self._status = 0
        self._body.clear()
        self._reader = EventReader()
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: {pool.host}\r\n"
            f"authorization: Bearer {self.replicas.engine_key}\r\nx-request-id: {self.ident}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(self._data)}\r\n\r\n"
        )
        pool.send(head.encode() + self._data, self, self._connected, afresh=afresh)

    def _connected(self, connection: ReplicaConnection) -> bool:
        if self._is_over:
            return False
        self._connection, self._sent_at = connection, self.replicas.clock.now()
        if self._paused_at is not None:
            connection.pause(True)
        return True

    def lost(self, trouble: str, is_stale: bool) -> None:
        """Go to another replica, if the request has brought nothing or another can go on."""
        if self._is_over:
            return
        pool = self._release()
        if is_stale:  # the replica had closed it before the request came
            self._try(afresh=True)
            return
        if pool is not None:
            pool.avoid_until = self.replicas.loop.time() + AVOID_S
        self._failed(trouble)

    def _failed(self, trouble: str) -> None:
        if not self._is_started:
            self._tries += 1
            if self._tries < TRIES:
                self._later(0.05 * self._tries)
                return
            name = self.route.service
            self._refuse(
                Refusal(
                    BROKEN,
                    "api_connection_error",
                    f"No replica of {name!r} answered ({trouble}); try again in a moment.",
                )
            )
            return
        if self._status and not self._prepare_takeover():
            return
        self._status = 0
        if self.replicas.loop.time() > self._give_up_at:
            self._break_off(f"no replica could go on with it ({trouble})")
        else:
            self._later(0.0 if self._tries == 0 else TAKEOVER_PAUSE_S)
            self._tries += 1

    def _prepare_takeover(self) -> bool:
        """Prepare what another replica is asked; False if the stream has ended instead."""
        assert self._log is not None
        if self._log.is_done or (rest := self._log.rest) is not None:
            self.caller.piece(b"" if self._log.is_done else (rest or b""))
            self.caller.finish()
            self._end(OK)
            return False
        request = self._log.take_over()
        if request is None:
            self._break_off("its replica was lost, and no other can go on with an answer like this")
            return False
        self._data = orjson.dumps(request)
        self._tries = 0
        self._give_up_at = self.replicas.loop.time() + TAKEOVER_S
        self.replicas.counts.takeovers += 1
        return True

    def _later(self, pause_s: float) -> None:
        self._timer = self.replicas.loop.call_later(pause_s, self._try)

    # what the replica answers

    def heard_head(self, status: int, kind: bytes) -> None:
        """Begin a stream, or wait for a whole answer."""
        self._status, self._kind = status, kind
        is_stream = kind.startswith(b"text/event-stream") and self._log is not None
        if self._is_started:
            if status != OK or not is_stream:
                self._drop_replica()
                if status in BUSY:
                    self._status = 0
                    self._failed(f"status {status}")
                else:
                    self._break_off(f"another replica refused to go on with status {status}")
        elif status == UNAVAILABLE and self._tries + 1 < TRIES and len(self.route.urls) > 1:
            pool = self._drop_replica()
            if pool is not None:
                pool.avoid_until = self.replicas.loop.time() + AVOID_S
            self._status = 0
            self._failed("it is not ready")
        elif is_stream and status == OK:
            self._is_started = True
            self.caller.start(status, kind, self._headers())

    def heard_body(self, data: bytes) -> None:
        """Pass a piece of a stream on, or keep it until the answer is whole."""
        if self._is_over or not self._status:
            return
        if not self._is_started:
            self._body += data
            if len(self._body) > MAX_ANSWER_BYTES:
                self._drop_replica()
                message = f"The answer is larger than {MAX_ANSWER_BYTES} bytes."
                self._refuse(Refusal(BROKEN, "api_error", message))
            return
        assert self._log is not None
        if not self._has_first:
            self._has_first = True
            self.replicas.counts.first_s.append(self.replicas.clock.now() - self.arrived)
        try:
            events = [self._log.pass_on(event) for event in self._reader.feed(data)]
        except EventTooLarge as error:
            self._drop_replica()
            self._break_off(str(error))
            return
        self.caller.piece(b"".join(events))

    def heard_end(self) -> None:
        """The answer is whole."""
        if self._is_over or not self._status:
            return
        self._release()
        if not self._is_started:
            if self._kind.startswith(JSON):
                self._count()
            status = self._status
            self.caller.answer(status, self._kind, bytes(self._body), self._headers())
            self._end(status)
        elif self._log is not None and not self._log.is_done and self.path in (CHAT, TEXT):
            self._failed("it ended the stream early")
        else:
            self.caller.finish()
            self._end(OK)

    def _count(self) -> None:
        try:
            self.usage.read(orjson.loads(self._body))
        except orjson.JSONDecodeError:
            return  # nothing to count

    def _headers(self) -> tuple[tuple[bytes, bytes], ...]:
        overhead_ms = max(0.0, self._sent_at - self.arrived) * 1000
        return (
            (b"x-request-id", self.ident.encode()),
            (b"x-karez-overhead-ms", b"%.3f" % overhead_ms),
        )

    # how it ends

    def gone(self) -> None:
        """The caller has hung up: the replica is let go of."""
        if not self._is_over:
            self._drop_replica()
            self._end(GONE)

    def paused(self, is_paused: bool) -> None:
        """The caller reads slower than the answer comes, or has caught up."""
        self._paused_at = self.replicas.loop.time() if is_paused else None
        if self._connection is not None:
            self._connection.pause(is_paused)

    def check_silence(self, now: float) -> None:
        """Give up a replica that is silent for too long, and a caller that does not read."""
        if self._paused_at is not None:
            if now - self._paused_at > SILENCE_S:
                self.caller.abort()
            return
        connection = self._connection
        if connection is None:
            return
        limit_s = SILENCE_S if self._status else FIRST_S
        if now - connection.heard_at > limit_s:
            connection.close()
            self.lost(f"it was silent for {limit_s:.0f} s", is_stale=False)

    def _refuse(self, refusal: Refusal) -> None:
        self.caller.refuse(refusal)
        self._end(refusal.status)

    def _break_off(self, why: str) -> None:
        """End a stream with an error that clients raise."""
        error = Refusal(BROKEN, "api_connection_error", f"The stream broke off: {why}.")
        event = b"event: error\n" if self.path == ANTHROPIC_PATH else b""
        self.caller.piece(event + b"data: %s\n\n" % orjson.dumps(problem(error, self.path)))
        self.caller.finish()
        self.replicas.counts.broken += 1
        self._end(BROKEN)

    def _release(self) -> ReplicaPool | None:
        pool, self._pool, self._connection = self._pool, None, None
        if pool is not None:
            pool.inflight -= 1
        return pool

    def _drop_replica(self) -> ReplicaPool | None:
        """Close the connection to the replica, which then stops to compute."""
        if self._connection is not None:
            self._connection.close()
        return self._release()

    def _end(self, status: int) -> None:
        self._is_over = True
        self._release()
        if self._timer is not None:
            self._timer.cancel()
        replicas, duration_s = self.replicas, self.replicas.clock.now() - self.arrived
        replicas.relays.discard(self)
        self.queue.inflight -= 1
        self.queue.saw(duration_s)
        replicas.counts.saw(status, self.usage)
        replicas.spool.add(
            Call(
                id=self.ident,
                at=self.arrived,
                project=self.route.project,
                key_id=self.key.id,
                service=self.route.service,
                prompt_tokens=self.usage.prompt,
                completion_tokens=self.usage.completion,
                status=status,
                duration_s=duration_s,
            )
        )
