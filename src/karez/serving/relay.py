"""One request on its way: to a replica, to another where one is lost, and the answer back.

A request that has brought nothing yet goes to the next replica. A stream whose replica is lost goes
on at another one with the prompt and the text that was sent, and waits for one if it has to.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import orjson

from karez.core.ports import Clock
from karez.core.routing import Route
from karez.serving.admission import INVALID, Admitted
from karez.serving.answers import ANTHROPIC_PATH, JSON, Refusal, problem
from karez.serving.attempts import TRIES, Attempts
from karez.serving.call_meter import BYTES_PER_TOKEN
from karez.serving.http_connection import HttpConnection
from karez.serving.prefix_affinity import blocks_of
from karez.serving.relay_counts import RelayCounts
from karez.serving.replica_connection import ReplicaConnection, ReplicaPool
from karez.serving.stream_log import CHAT, TEXT, EventReader, EventTooLarge, StreamLog
from karez.serving.token_usage import TokenUsage

GONE = 499
"""Status of a call whose caller hung up; nginx's name for it is "client closed request"."""
OK, INTERNAL, BROKEN, UNAVAILABLE = 200, 500, 502, 503
BUSY = (429, UNAVAILABLE)
AVOID_S = 2.0
"""How long a replica that failed is asked after the others."""
FIRST_S, SILENCE_S = 600.0, 120.0
"""Longest silence of a replica before its answer; within a stream, of it and of its caller."""
MAX_ANSWER_BYTES = 256 << 20


class Replicas(Protocol):
    """What a relay works with: the gateway."""

    clock: Clock
    counts: RelayCounts

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that serves."""

    def pool(self, url: str) -> ReplicaPool:
        """The connections to a replica."""

    def settle(self, relay: "Relay", answer: Callable[[], None] | None) -> None:
        """Record the call of a request that has ended, and then end its answer."""

    def current_route(self, route: Route) -> Route | None:
        """What has become of a route since; None: its service is gone."""


class Relay:
    """One request."""

    _log: StreamLog | None = None
    _reader: EventReader | None = None
    _pool: ReplicaPool | None = None
    _connection: ReplicaConnection | None = None
    _timer: asyncio.TimerHandle | None = None
    _status = 0
    """Of the replica's answer; 0: it has not begun."""
    _kind = JSON
    _body: list[bytes]
    _size = 0
    """Bytes in `_body`, an answer that is not passed on before it is whole."""
    _is_started = False
    """Whether the caller has been sent the head of a stream."""
    _has_first = False
    """Whether this replica has sent a piece of a stream."""
    _sent_at = 0.0
    _paused_at: float | None = None
    """Since when the caller has not read what is there for it, by the loop's clock."""
    _held_until = 0.0
    """When the first replica was there, by the clock, of a request that had to wait for one."""
    _is_held = _is_over = False
    _ended_with = 0
    """The status that the caller has seen."""

    def __init__(
        self,
        replicas: Replicas,
        caller: HttpConnection,
        admitted: Admitted,
        path: str,
        request: dict[str, Any],
        ident: str,
    ) -> None:
        """A request of a caller, whose call is recorded as `ident`."""
        self._replicas, self._caller, self._ident = replicas, caller, ident
        self.key, self._route, self._queue, self._arrived = admitted[:4]
        self._meter, self._reserved = admitted.meter, admitted.reserved
        self._path, self._request = path, request
        self._usage, self._attempts = TokenUsage(), Attempts()

    def start(self) -> None:
        """Send the request to a replica."""
        self._queue.inflight += 1
        request = self._request
        request.update(self._route.told)
        if request.get("stream"):
            self._begin_stream(request)
        try:
            self._data = orjson.dumps(request)
        except TypeError as error:  # read, but nested too deeply to be written
            self._refuse(Refusal(400, INVALID, f"The body cannot be passed on: {error}."))
            return
        self._try()

    def _begin_stream(self, request: dict[str, Any]) -> None:
        wants_usage = True
        if self._path in (CHAT, TEXT):
            options = request.get("stream_options") or {}
            request["stream_options"] = {**options, "include_usage": True}
            wants_usage = bool(options.get("include_usage"))
        self._log = StreamLog(
            path=self._path, request=request, wants_usage=wants_usage, usage=self._usage
        )

    # where the request goes

    def _try(self, *, afresh: bool = False) -> None:
        self._timer = None
        urls = self._route.urls
        if self._attempts.number or self._is_started:
            current = self._replicas.current_route(self._route)
            urls = () if current is None else current.urls
        if not urls:
            self._is_held = True
            self._failed("no replica is ready")
            return
        if self._is_held and not self._held_until:
            self._held_until = self._replicas.clock.now()
        pool = self._pool = self._choose(urls)
        pool.inflight += 1
        self._status, self._body, self._size, self._has_first = 0, [], 0, False
        if self._log is not None:
            self._reader = EventReader()
        head, ident = pool.head(self._path), self._ident.encode()
        rest = b"x-request-id: %s\r\ncontent-length: %d\r\n\r\n" % (ident, len(self._data))
        pool.send(head + rest + self._data, self, afresh=afresh)

    def _choose(self, urls: Sequence[str]) -> ReplicaPool:
        if len(urls) == 1:
            return self._replicas.pool(urls[0])
        now = self._replicas.loop.time()
        pools = {url: self._replicas.pool(url) for url in urls}
        loads = {url: pool.inflight for url, pool in pools.items() if pool.avoid_until <= now}
        loads = loads or {url: pool.inflight for url, pool in pools.items()}
        return pools[self._queue.affinity.choose(blocks_of(self._request), loads)]

    def connected(self, connection: ReplicaConnection) -> bool:
        """Use a connection; returns whether the request is still wanted."""
        if self._is_over:
            return False
        self._connection, self._sent_at = connection, self._replicas.clock.now()
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
            pool.avoid_until = self._replicas.loop.time() + AVOID_S
            self._saw(pool, is_failure=True)
        self._failed(trouble)

    def _failed(self, trouble: str) -> None:
        if not self._is_started:
            self._wait_for_another(trouble)
            return
        if self._status and not self._prepare_takeover():
            return
        self._status = 0
        pause_s = self._attempts.takeover_pause_s(self._replicas.loop.time())
        if pause_s is None:
            self._break_off(f"no replica could go on with it ({trouble})")
        else:
            self._later(pause_s)

    def _wait_for_another(self, trouble: str) -> None:
        """Try again, unless replicas have died of the request, or none was there for long."""
        was_taken, self._sent_at = self._sent_at > 0, 0.0
        pause_s = self._attempts.pause_s(was_taken=was_taken, now=self._replicas.loop.time())
        if pause_s is not None:
            self._later(pause_s)
            return
        name = self._route.service
        message = f"No replica of {name!r} answered ({trouble}); `karez services show {name}`."
        self._refuse(Refusal(BROKEN, "api_connection_error", message))

    def _prepare_takeover(self) -> bool:
        """Prepare what another replica is asked; False if the stream has ended instead."""
        assert self._log is not None
        if self._log.is_done or (rest := self._log.rest) is not None:
            self._caller.piece(b"" if self._log.is_done else (rest or b""))
            self._end(OK, self._caller.finish)
            return False
        may = self._attempts.may_take_over(self._usage.completion, self._replicas.loop.time())
        request = self._log.take_over() if may else None
        if request is None:
            self._break_off(
                "its replica was lost, and no other can go on with it"
                if may
                else f"{TRIES} replicas in a row were lost with it"
            )
            return False
        self._data = orjson.dumps(request)
        self._replicas.counts.takeovers += 1
        return True

    def _later(self, pause_s: float) -> None:
        self._timer = self._replicas.loop.call_later(pause_s, self._try)

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
        elif status == UNAVAILABLE and self._attempts.number == 0 and len(self._route.urls) > 1:
            pool = self._drop_replica()
            if pool is not None:
                pool.avoid_until = self._replicas.loop.time() + AVOID_S
            self._status = 0
            self._failed("it is not ready")
        elif is_stream and status == OK:
            self._is_started = True
            self._caller.start(status, kind, self._headers())

    def heard_body(self, data: bytes) -> None:
        """Pass a piece of a stream on, or keep it until the answer is whole."""
        if self._is_over or not self._status:
            return
        if not self._is_started:
            self._body.append(data)
            self._size += len(data)
            if self._size > MAX_ANSWER_BYTES:
                self._drop_replica()
                message = f"The answer is larger than {MAX_ANSWER_BYTES} bytes."
                self._refuse(Refusal(BROKEN, "api_error", message))
            return
        assert self._log is not None
        assert self._reader is not None
        if not self._has_first:
            self._has_first = True
            if not self._log.takeovers:
                self._replicas.counts.first_s.append(self._replicas.clock.now() - self._arrived)
        try:
            events = [*map(self._log.pass_on, self._reader.feed(data))]
        except EventTooLarge as error:
            self._drop_replica()
            self._break_off(str(error))
            return
        self._caller.piece(b"".join(events))

    def heard_end(self) -> None:
        """The answer is whole."""
        if self._is_over or not self._status:
            return
        pool = self._release()
        if pool is not None:
            self._saw(pool, is_failure=self._status >= INTERNAL)
        if not self._is_started:
            status, kind, data = self._status, self._kind, b"".join(self._body)
            if kind.startswith(JSON):
                self._count(data)
            self._end(status, lambda: self._caller.answer(status, kind, data, self._headers()))
        elif self._log is not None and not self._log.is_done and self._path in (CHAT, TEXT):
            self._failed("it ended the stream early")
        else:
            self._end(OK, self._caller.finish)

    def _saw(self, pool: ReplicaPool, *, is_failure: bool) -> None:
        now = self._replicas.clock.now()
        pool.saw(now - (self._sent_at or now), is_failure=is_failure)

    def _count(self, data: bytes) -> None:
        try:
            self._usage.read(orjson.loads(data))
        except orjson.JSONDecodeError:
            return  # nothing to count

    def _headers(self) -> bytes:
        overhead_ms = max(0.0, self._sent_at - self._arrived) * 1000
        more = b"" if self._meter is None else self._meter.headers()
        if self._held_until:
            more += b"x-karez-held-ms: %.0f\r\n" % ((self._held_until - self._arrived) * 1000)
        told = (self._ident.encode(), overhead_ms, more)
        return b"x-request-id: %s\r\nx-karez-overhead-ms: %.3f\r\n%s" % told

    # how it ends

    def gone(self) -> None:
        """The caller has hung up: the replica is let go of."""
        if not self._is_over:
            self._drop_replica()
            self._end(GONE)

    def paused(self, is_paused: bool) -> None:
        """The caller reads slower than the answer comes, or has caught up."""
        self._paused_at = self._replicas.loop.time() if is_paused else None
        if self._connection is not None:
            self._connection.pause(is_paused)

    def check_silence(self, now: float) -> None:
        """Give up a replica that is silent for too long, and a caller that does not read."""
        if self._paused_at is not None:
            if now - self._paused_at > SILENCE_S:
                self._caller.abort()
            return
        connection = self._connection
        if connection is None:
            return
        limit_s = SILENCE_S if self._has_first else FIRST_S
        if now - connection.heard_at > limit_s:
            connection.close()
            self.lost(f"it was silent for {limit_s:.0f} s", is_stale=False)

    def end_of_key(self) -> None:
        """End the request: its key was revoked or has expired."""
        self._drop_replica()
        if self._is_started:
            self._break_off("its key is not valid any more")
        else:
            message = "The API key was revoked or has expired."
            self._refuse(Refusal(401, "authentication_error", message))

    def _refuse(self, refusal: Refusal) -> None:
        self._end(refusal.status, lambda: self._caller.refuse(refusal))

    def _break_off(self, why: str) -> None:
        """End a stream with an error that clients raise."""
        error = Refusal(BROKEN, "api_connection_error", f"The stream broke off: {why}.")
        event = b"event: error\n" if self._path == ANTHROPIC_PATH else b""
        self._caller.piece(event + b"data: %s\n\n" % orjson.dumps(problem(error, self._path)))
        self._replicas.counts.broken += 1
        self._end(BROKEN, self._caller.finish)

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

    def _end(self, status: int, answer: Callable[[], None] | None = None) -> None:
        """Record the call, and then end the caller's answer."""
        self._is_over, self._ended_with = True, status
        self._release()
        if self._timer is not None:
            self._timer.cancel()
        self._queue.inflight -= 1
        self._replicas.settle(self, answer)

    def record(self, now: float) -> bytes:
        """Count the call, which has ended; returns it as JSON of a core.usage.Call, on a line."""
        usage, duration_s = self._usage, now - self._arrived
        if not usage.prompt and self._sent_at and (self._is_started or self._ended_with == GONE):
            usage.prompt = len(self._data) // BYTES_PER_TOKEN  # it left before it was told
        self._queue.saw(duration_s)
        self._replicas.counts.saw(self._ended_with, usage)
        if self._meter is not None:
            self._meter.settle(self._reserved, usage.prompt + usage.completion, now)
        call = {
            "id": self._ident,
            "at": self._arrived,
            "project": self._route.project,
            "key_id": self.key.id,
            "service": self._route.service,
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "cached_tokens": usage.cached,
            "status": self._ended_with,
            "duration_s": duration_s,
        }
        return orjson.dumps(call, option=orjson.OPT_APPEND_NEWLINE)
