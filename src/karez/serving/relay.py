"""One request on its way: what its replica answers, and what its caller is sent.

A request that has brought nothing yet goes to the next replica. A stream whose replica is lost goes
on at another one with the prompt and the text that was sent, and waits for one if it has to.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import orjson
import structlog
from typing_extensions import override

from karez.core.engines import Task
from karez.core.guardrails import Side
from karez.serving.admission import Elsewhere
from karez.serving.answers import ANTHROPIC_PATH, JSON, Refusal, problem
from karez.serving.asking import Asker, Leg, Replicas
from karez.serving.attempts import TRIES
from karez.serving.call_meter import BYTES_PER_TOKEN
from karez.serving.call_record import CallRecord
from karez.serving.dispatch import BROKEN, Dispatch
from karez.serving.forced_tools import CallStream, as_call
from karez.serving.guarded_stream import GuardedStream
from karez.serving.guards import Guard, check_answer
from karez.serving.http_request import Caller
from karez.serving.model_call import ModelCall
from karez.serving.replica_connection import ReplicaConnection
from karez.serving.stream_log import CHAT, TEXT, EventReader, EventTooLarge, StreamLog
from karez.serving.token_usage import TokenUsage

log = structlog.get_logger()

UNREADABLE = (TypeError, ValueError, LookupError, AttributeError, RecursionError)
"""Errors of reading an answer that is not formed as answers are."""
GONE = 499
"""Status of a call whose caller hung up; nginx's name for it is "client closed request"."""
OK, INTERNAL, UNAVAILABLE, LATE = 200, 500, 503, 504
BUSY = (429, UNAVAILABLE)
FIRST_S, SILENCE_S = 600.0, 120.0
"""Longest silence of a replica before its answer; within a stream, of it and of its caller."""
MAX_ANSWER_BYTES = 256 << 20


class RelayOwner(Replicas, Protocol):
    """What has a relay: the gateway."""

    def settle(self, relay: "Relay", answer: Callable[[], None] | None) -> None:
        """Record the call of a request that has ended, and then end its answer."""


class Relay(Asker):
    """One request."""

    _log: StreamLog | None = None
    _reader: EventReader | None = None
    _guarded: GuardedStream | None = None
    _called: CallStream | None = None
    _deadline: asyncio.TimerHandle | None = None
    status = 0
    """Of the replica's answer; 0: it has not begun."""
    is_started = False
    """Whether the caller has been sent the head of a stream."""
    is_over = False
    _kind = JSON
    _body: list[bytes]
    _size = 0
    """Bytes in `_body`, an answer that is not passed on before it is whole."""
    _has_first = False
    """Whether this replica has sent a piece of a stream."""
    _paused_at: float | None = None
    """Since when the caller has not read what is there for it, by the loop's clock."""

    def __init__(
        self,
        owner: RelayOwner,
        caller: Caller,
        call: ModelCall,
        admitted: Elsewhere,
        ident: str,
    ) -> None:
        """A request of a caller, whose call is recorded as `ident`."""
        self._owner, self._caller, self.call = owner, caller, call
        self._usage = TokenUsage()
        self._told = CallRecord(ident=ident, call=call, usage=self._usage, route=admitted[0].route)
        if call.found:
            self._told.guardrails = {one.name for one in call.found}
        guardrails = admitted[0].route.guardrails
        if guardrails and admitted[0].route.task == Task.GENERATE:
            guard = Guard(guardrails, Side.OUTPUT)
            self._guarded = None if guard.is_idle else GuardedStream(guard, call.path)
        if call.is_tool_call:
            self._called = CallStream(ident)
        self._request: dict[str, Any] = dict(call.body)
        self._dispatch = Dispatch(owner, self, admitted, self._request, self._told)
        self._asking = self._dispatch.asking

    def start(self) -> None:
        """Send the request to a replica, once it is its turn."""
        if self._request.get("stream"):
            self._begin_stream(self._request)
        limit_s = self.call.terms.deadline_s
        if limit_s is not None:
            left_s = self.call.at + limit_s - self._owner.clock.now()
            self._deadline = self._owner.loop.call_later(max(0.0, left_s), self._too_late)
        self._dispatch.start()

    def _begin_stream(self, request: dict[str, Any]) -> None:
        wants_usage = True
        if self.call.path in (CHAT, TEXT):
            options = request.get("stream_options") or {}
            request["stream_options"] = {**options, "include_usage": True}
            wants_usage = bool(options.get("include_usage"))
        self._log = StreamLog(
            path=self.call.path, request=request, wants_usage=wants_usage, usage=self._usage
        )

    @property
    def waits_for(self) -> tuple[str, str] | None:
        """(project, service) of the model whose turn it waits for; None: it does not."""
        route = self._told.route
        return (route.project, route.service) if self._dispatch.is_queued else None

    # where it goes

    def begin_anew(self) -> None:
        """Another replica is asked now."""
        self.status, self._body, self._size, self._has_first = 0, [], 0, False
        if self._log is not None:
            self._reader = EventReader()

    def go_on_elsewhere(self) -> bool:
        """Prepare what another replica is asked; False if the stream has ended instead."""
        assert self._log is not None
        if self._log.is_done or (rest := self._log.rest) is not None:
            if not self._log.is_done:
                self._pass_on(rest or b"")
            if not self.is_over:
                self._finish()
            return False
        now = self._owner.loop.time()
        may = self._dispatch.attempts.may_take_over(self._usage.completion, now)
        request = self._log.take_over() if may else None
        if request is None:
            self.break_off(
                "its replica was lost, and no other can go on with it"
                if may
                else f"{TRIES} replicas in a row were lost with it"
            )
            return False
        self._dispatch.data = orjson.dumps(request)
        self._owner.counts.takeovers += 1
        self._told.takeovers += 1
        return True

    # what replicas say

    @override
    def prefer(self, second: Leg) -> None:
        self._dispatch.leave_to_second(is_failure=False)

    @override
    def second_failed(self) -> None:
        self._asking.end_second()

    @override
    def connected(self, connection: ReplicaConnection) -> bool:
        """Use a connection; returns whether the request is still wanted."""
        if self.is_over:
            return False
        self._dispatch.connected(connection)
        if self._paused_at is not None:
            connection.pause(True)
        return True

    @override
    def lost(self, trouble: str, is_stale: bool) -> None:
        if not self.is_over:
            self._dispatch.lost(trouble, is_stale=is_stale)

    @override
    def heard_head(self, status: int, kind: bytes) -> None:
        """Begin a stream, or wait for a whole answer."""
        is_failure = status >= INTERNAL and not self.is_started
        if is_failure and self._dispatch.leave_to_second(is_failure=True):
            return
        self.status, self._kind = status, kind
        self._asking.end_second()
        is_stream = kind.startswith(b"text/event-stream") and self._log is not None
        if self.is_started:
            if status != OK or not is_stream:
                self._asking.drop()
                if status in BUSY:
                    self.status = 0
                    self._dispatch.failed(f"status {status}")
                else:
                    self.break_off(f"another replica refused to go on with status {status}")
        elif status == UNAVAILABLE and self._dispatch.has_others:
            self._dispatch.refused_for_now()
        elif is_stream and status == OK:
            self.is_started, self._told.first_at = True, self._owner.clock.now()
            self._caller.start(status, kind, self._headers())

    @override
    def heard_body(self, data: bytes) -> None:
        """Pass a piece of a stream on, or keep it until the answer is whole."""
        if self.is_over or not self.status:
            return
        if not self.is_started:
            self._body.append(data)
            self._size += len(data)
            if self._size > MAX_ANSWER_BYTES:
                self._asking.drop()
                message = f"The answer is larger than {MAX_ANSWER_BYTES} bytes."
                self.refuse(Refusal(BROKEN, "api_error", message))
            return
        assert self._log is not None
        assert self._reader is not None
        if not self._has_first:
            self._has_first = True
            if not self._log.takeovers:
                first_s = self._owner.clock.now() - self.call.at
                self._owner.counts.first_s.append(first_s)
                self._began(first_s)
        try:
            events = [*map(self._log.pass_on, self._reader.feed(data))]
        except EventTooLarge as error:
            self._asking.drop()
            self.break_off(str(error))
            return
        self._pass_on(b"".join(events))

    def _began(self, seconds: float) -> None:
        """Tell how long its answer took to begin, unless it first waited for something else."""
        if not self._told.held_until and self._told.route.queue == self.call.route.queue:
            self._dispatch.queue.began(seconds)

    def _pass_on(self, events: bytes) -> None:
        """Send events of a stream, as far as guardrails let them through."""
        try:
            if self._called is not None:
                events = self._called.pass_on(events)
            if self._guarded is not None:
                events = self._guarded.pass_on(events)
        except UNREADABLE as error:
            self._log_unreadable(error)
            self._asking.drop()
            self.break_off("what the engine answered cannot be read")
            return
        self._caller.piece(events)
        if self._guarded is not None and self._guarded.is_blocked:
            self._asking.drop()
            self._end(OK, self._caller.finish)

    def _finish(self) -> None:
        """End a stream that is whole."""
        if self._guarded is not None:
            self._caller.piece(self._guarded.finish())
        self._end(OK, self._caller.finish)

    @override
    def heard_end(self) -> None:
        """The answer is whole."""
        if self.is_over or not self.status:
            return
        pool = self._asking.release()
        if pool is not None:
            self._dispatch.saw(pool, is_failure=self.status >= INTERNAL)
        if not self.is_started:
            self._answer()
        elif self._log is not None and not self._log.is_done and self.call.path in (CHAT, TEXT):
            self._dispatch.failed("it ended the stream early")
        else:
            self._finish()

    def _answer(self) -> None:
        """Send an answer that is whole, unless another model may have a better one."""
        status, kind, data = self.status, self._kind, b"".join(self._body)
        if (status >= INTERNAL or status in BUSY) and self._dispatch.goes_to_another_model():
            return
        self._told.first_at = self._owner.clock.now()
        if kind.startswith(JSON):
            self._count(data)
        try:
            if status == OK and self._called is not None:
                data = as_call(data, self._called.ident)
            if self._guarded is not None:
                data = check_answer(self._guarded.guard, data)
        except Refusal as refusal:
            self.refuse(refusal)
            return
        except UNREADABLE as error:
            self._log_unreadable(error)
            self.refuse(Refusal(BROKEN, "api_error", "What the engine answered cannot be read."))
            return
        self._end(status, lambda: self._caller.answer(status, kind, data, self._headers()))

    def _log_unreadable(self, error: Exception) -> None:
        log.error("gateway.answer-unreadable", id=self._told.ident, why=repr(error)[:500])

    def _count(self, data: bytes) -> None:
        try:
            self._usage.read(orjson.loads(data))
        except orjson.JSONDecodeError:
            return  # nothing to count

    def _headers(self) -> bytes:
        return self._told.headers(self.call.taken.headers(self._told.first_at))

    # how it ends

    def gone(self) -> None:
        """The caller has hung up: the replica is let go of."""
        if not self.is_over:
            self._asking.drop()
            self._end(GONE)

    def paused(self, is_paused: bool) -> None:
        """The caller reads slower than the answer comes, or has caught up."""
        self._paused_at = self._owner.loop.time() if is_paused else None
        if self._asking.connection is not None:
            self._asking.connection.pause(is_paused)

    def check_silence(self, now: float) -> None:
        """Give up a replica that is silent for too long, and a caller that does not read."""
        if self._paused_at is not None:
            if now - self._paused_at > SILENCE_S:
                self._caller.abort()
            return
        connection = self._asking.connection
        if connection is None:
            return
        limit_s = SILENCE_S if self._has_first else FIRST_S
        if now - connection.heard_at > limit_s:
            connection.close()
            self.lost(f"it was silent for {limit_s:.0f} s", is_stale=False)

    def give_up(self, refusal: Refusal) -> None:
        """End the request, such as one whose key was revoked."""
        self._asking.drop()
        if self.is_started:
            self._send_error(refusal)
            self._end(refusal.status, self._caller.finish)
        else:
            self.refuse(refusal)

    def _too_late(self) -> None:
        self._deadline = None
        message = f"The answer was not whole within {self.call.terms.deadline_s:g} s."
        self.give_up(Refusal(LATE, "timeout_error", message))

    def refuse(self, refusal: Refusal) -> None:
        """End a request that nothing was answered to."""
        self._end(refusal.status, lambda: self._caller.refuse(refusal))

    def break_off(self, why: str) -> None:
        """End a stream that no replica can go on with."""
        self._owner.counts.broken += 1
        self._send_error(Refusal(BROKEN, "api_connection_error", f"The stream broke off: {why}."))
        self._end(BROKEN, self._caller.finish)

    def _send_error(self, error: Refusal) -> None:
        """Send an event that clients raise as an error."""
        event = b"event: error\n" if self.call.path == ANTHROPIC_PATH else b""
        body = orjson.dumps(problem(error, self.call.path))
        self._caller.piece(event + b"data: %s\n\n" % body)

    def _end(self, status: int, answer: Callable[[], None] | None = None) -> None:
        """Record the call, and then end the caller's answer; once."""
        if self.is_over:
            return
        self.is_over, self._told.status = True, status
        if self._deadline is not None:
            self._deadline.cancel()
        self._dispatch.end()
        self._owner.settle(self, answer)

    def record(self, now: float) -> CallRecord:
        """Count the call, which has ended; returns what is to be recorded of it."""
        usage, told = self._usage, self._told
        if not usage.prompt and told.sent_at and (self.is_started or told.status in (GONE, LATE)):
            usage.prompt = len(self._dispatch.data) // BYTES_PER_TOKEN  # it left before it was told
        if told.status == OK and not self.is_started:  # it tells nothing of its first token
            self._began(told.sent_at - self.call.at)
        if told.status in (OK, LATE) and told.sent_at:
            self._dispatch.queue.saw(
                now - told.sent_at,
                size=self.call.size,
                prompt_tokens=usage.prompt,
                answer_tokens=usage.completion,
            )
        self._owner.counts.saw(told.status, usage)
        if self._guarded is not None:
            found = self._guarded.guard.found
            self._owner.counts.found(told.route.project, found)
            told.guardrails = {*told.guardrails, *(one.name for one in found)}
        self.call.taken.settle(usage.prompt + usage.completion, now, told.route)
        self._dispatch.forget_relay()
        return told
