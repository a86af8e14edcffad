"""A request whose project has guardrails that are models, between its connection and its relay.

It goes to its model once they allow it, and what the model answers goes to the caller once they
allow what was said up to there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from typing_extensions import override

from karez.core.guardrails import Guardrail, Side
from karez.serving.admission import Elsewhere
from karez.serving.answers import Refusal
from karez.serving.guarded_stream import GuardedStream
from karez.serving.guards import ABOUT, FILTERED, NOT_SAID, Guard, block_answer, check_answer
from karez.serving.http_request import Caller, Exchange, Request
from karez.serving.judges import OK, Court, Judges
from karez.serving.model_call import ModelCall

SEGMENT = 400
"""Characters of a stream after which the guardrails are asked again."""
MAX_HELD = 1 << 20
"""Bytes of a stream that wait for them; then its replica waits too."""
LATE = 504
_FORM = ABOUT | {"finish_reason", "stop_reason", "status", "call_id", "item_id"}
"""Fields that the engine fills and not the model."""
_UNREADABLE = (TypeError, ValueError, LookupError, AttributeError, RecursionError)


class JudgingOwner(Court, Protocol):
    """What has the exchange: the gateway."""

    def give_back(self, call: ModelCall) -> None:
        """Count a call that was admitted, and goes nowhere, no more."""

    def refused(self, request: Request, refusal: Refusal) -> None:
        """Note a request that was refused before it went anywhere."""


@dataclass(slots=True)
class Heard(Guard):
    """Hears the texts of a request or an answer, and changes nothing."""

    guardrails: Sequence[Guardrail] = ()
    side: Side = Side.BOTH
    said: dict[Any, str] = field(default_factory=dict)
    """By where they come; those that come whole are one text."""
    size: int = 0
    """Characters of all."""

    @override
    def read(self, text: str, channel: Any = None, *, is_last: bool = True) -> str:
        self.size += len(text)
        before = self.said.get(channel, "")
        self.said[channel] = f"{before}\n{text}" if channel is None and before else before + text
        return text

    @override
    def _of_key(self, key: Any, value: Any, *, is_media: bool) -> Any:
        if key not in _FORM:
            Guard._of_key(self, key, value, is_media=is_media)  # slots: there is no super()
        return value

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(filter(None, self.said.values()))


class JudgedExchange(Exchange, Caller):
    """Hears a relay's answer in place of the connection that the request came from."""

    def __init__(
        self, owner: JudgingOwner, connection: Caller, request: Request, call: ModelCall
    ) -> None:
        """Judge a call, which a request has become."""
        self._owner, self._caller, self._request, self._call = owner, connection, request, call
        self._judges = Judges(owner, call)
        self._asked, self._heard = Heard(), Heard()
        self._stream = GuardedStream(self._heard, call.path)
        self._held: list[bytes] = []
        """Pieces of a stream that are not allowed yet."""
        self._judged = 0
        """Characters that were judged."""
        self._admitted: Elsewhere | None = None
        """Until it is on its way."""
        self._relay: Exchange | None = None
        self._is_asking = self._is_whole = self._is_over = False
        self._is_paused = self._waits = False
        """Whether the caller is slow, and whether the relay waits for the guardrails."""

    def open(self) -> "JudgedExchange":
        """Admit the call, and send it on once it is allowed. Raises Refusal."""
        try:
            self._asked.read_fields(dict(self._call.body), NOT_SAID)
        except RecursionError:
            raise Refusal(400, FILTERED, "The body is nested too deeply to be read.") from None
        self._admitted = self._owner.admit(self._call)
        said = [{"role": "user", "content": self._asked.text}]
        self._judges.ask(Side.INPUT, said, self._begin)
        return self

    def _begin(self, blocked_by: str) -> None:
        if self._is_over or self._admitted is None:
            return
        if blocked_by:
            self._owner.give_back(self._call)
            self._not_allowed(blocked_by)
            return
        admitted, self._admitted = self._admitted, None
        relay = self._owner.begin_relay(self._call, admitted, self)
        self._relay = None if self._is_over else relay

    def _not_allowed(self, names: str) -> None:
        message = f"The guardrail {names!r} of this project does not allow this request."
        refusal = Refusal(400, FILTERED, message)
        limit_s = self._call.terms.deadline_s
        if limit_s is not None and self._owner.now() > self._call.at + limit_s:
            refusal = Refusal(LATE, "timeout_error", f"It was not judged within {limit_s:g} s.")
        self._owner.refused(self._request, refusal)
        self.refuse(refusal)

    def _said(self, text: str) -> Sequence[dict[str, str]]:
        asked = {"role": "user", "content": self._asked.text}
        return [asked, {"role": "assistant", "content": text}]

    # as a caller

    @override
    def answer(self, status: int, kind: bytes, data: bytes, headers: bytes = b"") -> None:
        def decided(blocked_by: str) -> None:
            if self._is_over:
                return
            allowed = data
            try:
                if blocked_by:
                    allowed = block_answer(data, blocked_by)
            except Refusal as refusal:
                self.refuse(refusal)
                return
            self._is_over = True
            self._caller.answer(status, kind, allowed, headers)

        if status != OK or not self._judges.read(Side.OUTPUT):
            decided("")
            return
        try:
            check_answer(self._heard, data)
        except _UNREADABLE:
            self._heard.read(data.decode(errors="replace"))
        self._judges.ask(Side.OUTPUT, self._said(self._heard.text), decided)

    @override
    def refuse(self, refusal: Refusal) -> None:
        if not self._is_over:
            self._is_over = True
            self._caller.refuse(refusal)

    @override
    def start(self, status: int, kind: bytes, headers: bytes) -> None:
        self._caller.start(status, kind, headers)

    @override
    def piece(self, data: bytes) -> None:
        if self._is_over or not data:
            return
        if self._judges.read(Side.OUTPUT):
            try:
                self._stream.pass_on(data)
            except _UNREADABLE:
                self._heard.read(data.decode(errors="replace"))
        if not self._judges.hold(Side.OUTPUT):
            self._caller.piece(data)
            return
        self._held.append(data)
        if self._heard.size - self._judged >= SEGMENT:
            self._judge()
        if not self._waits and sum(map(len, self._held)) > MAX_HELD and self._relay is not None:
            self._waits = True
            self._relay.paused(True)

    @override
    def finish(self) -> None:
        self._is_whole = True
        if not self._is_over:
            self._judge()

    def _judge(self) -> None:
        """Ask about what was said so far, unless that is being asked."""
        if self._is_asking:
            return
        size, count = self._heard.size, len(self._held)
        self._is_asking = True
        if size == self._judged or not self._judges.read(Side.OUTPUT):
            self._release("", count, size)
            return
        said = self._said(self._heard.text)
        self._judges.ask(Side.OUTPUT, said, lambda by: self._release(by, count, size))

    def _release(self, blocked_by: str, count: int, size: int) -> None:
        """Send what was allowed, or end the stream."""
        self._is_asking = False
        if self._is_over:
            return
        if blocked_by:
            self._is_over = True
            self._caller.piece(self._stream.last(blocked_by))
            self._caller.finish()
            if self._relay is not None and not self._is_whole:
                self._relay.gone()
            return
        self._judged = size
        sent, self._held = self._held[:count], self._held[count:]
        self._caller.piece(b"".join(sent))
        if self._waits and self._relay is not None:
            self._waits = False
            self._relay.paused(self._is_paused)
        if self._is_whole and not self._held:
            self._is_over = True
            self._caller.finish()
        elif self._is_whole or self._heard.size - self._judged >= SEGMENT:
            self._judge()

    @override
    def abort(self) -> None:
        self._caller.abort()

    # as an exchange

    @override
    def gone(self) -> None:
        """The caller has hung up."""
        self._is_over = True
        self._judges.drop()
        if self._relay is not None:
            self._relay.gone()
        elif self._admitted is not None:
            self._owner.give_back(self._call)

    @override
    def paused(self, is_paused: bool) -> None:
        """The caller reads slower than the answer comes, or has caught up."""
        self._is_paused = is_paused
        if self._relay is not None and not self._waits:
            self._relay.paused(is_paused)
