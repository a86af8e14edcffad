"""The guardrails of a project, at work on one request and its answer. Pure.

What they find in a request is masked before it goes anywhere, or the request is refused. Answers
are read as they come: of a stream, what may be the beginning of a match is held back until that is
decided. Guardrails that only count hold nothing back.
"""

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson

from karez.core.guardrails import GuardAction, Guardrail, Side
from karez.core.routing import Route
from karez.serving.answers import Refusal
from karez.serving.relay_counts import RelayCounts
from karez.serving.stream_log import CHAT, TEXT
from karez.serving.text_patterns import Finder, TextInPieces, TooManyCandidates

FILTERED = "content_filter"
"""OpenAI's name for the end of an answer that was blocked, and the type of such an error."""
MAX_GUARDED = 1 << 20
"""Characters of a request that guardrails read: more would hold up all others for long."""
ASKED = ("messages", "prompt", "suffix", "input", "system", "instructions", "query", "documents")
"""Fields of requests that have texts."""
ANSWERED = ("choices", "content", "output", "output_text")
"""The same of answers."""
_NOTHING = {"role": "assistant", "content": ""}
_NO_TEXT = frozenset({"role", "type", "id", "url", "image_url", "data", "input_audio"})


class Blocked(Exception):
    """A guardrail ends an answer."""


@lru_cache(maxsize=256)
def _finder(guardrail: Guardrail) -> Finder:
    return Finder(guardrail.patterns, guardrail.words)


@dataclass(slots=True, eq=False)
class _Reader:
    """One guardrail, reading the texts of one request or answer."""

    guardrail: Guardrail
    size: int = 0
    """Characters so far."""
    channels: dict[Any, TextInPieces] = field(default_factory=dict)

    def read(self, text: str, channel: Any, *, is_last: bool) -> tuple[str, bool]:
        """Take in a piece of a text; returns what is decided, and whether something was found."""
        guardrail = self.guardrail
        if guardrail.characters:
            before, self.size = self.size, self.size + len(text)
            return text, before <= guardrail.characters < self.size
        pieces = self.channels.get(channel)
        if pieces is None:
            pieces = self.channels[channel] = TextInPieces(_finder(guardrail))
        masks = guardrail.action == GuardAction.MASK
        try:
            decided = pieces.feed(text, masks=masks, is_last=is_last)
        except TooManyCandidates as error:
            if guardrail.action == GuardAction.COUNT:
                return text, False
            raise Blocked(f"{guardrail.name} ({error})") from None
        found = len(pieces.matches) > 0
        pieces.matches.clear()
        if guardrail.action == GuardAction.COUNT:
            return text, found
        return decided, found


@dataclass(slots=True)
class Guard:
    """The guardrails that read one side of a request."""

    guardrails: Sequence[Guardrail]
    side: Side
    found: list[Guardrail] = field(default_factory=list)
    """Those that found something, each as often as it did."""
    _readers: list[_Reader] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._readers = [_Reader(one) for one in self.guardrails if one.reads(self.side)]

    @property
    def is_idle(self) -> bool:
        """Whether none reads this side."""
        return not self._readers

    def read(self, text: str, channel: Any = 0, *, is_last: bool = False) -> str:
        """Take in a piece of a text; returns what is decided and may be passed on.

        Raises Blocked.
        """
        for reader in self._readers:
            text, has_found = reader.read(text, channel, is_last=is_last)
            if has_found:
                self.found.append(reader.guardrail)
                if reader.guardrail.action == GuardAction.BLOCK:
                    raise Blocked(reader.guardrail.name)
        return text

    def read_all(self, value: Any) -> Any:
        """Read all texts of a value, each a whole one; returns the value without what is masked.

        Raises Blocked.
        """
        if isinstance(value, str):
            return self.read(value, object(), is_last=True)
        if isinstance(value, list):
            return [self.read_all(one) for one in value]
        if isinstance(value, dict):
            return {
                key: one if key in _NO_TEXT else self.read_all(one) for key, one in value.items()
            }
        return value


def check_request(
    route: Route, request: MutableMapping[str, Any], size: int, counts: RelayCounts
) -> Sequence[Guardrail]:
    """Mask what a request to a model asks, in place; returns what has found something.

    Raises Refusal.
    """
    guard = Guard(route.guardrails, Side.INPUT)
    if not guard.is_idle:
        try:
            _check_request(guard, request, size)
        finally:
            counts.found(route.project, guard.found)
    return guard.found


def _check_request(guard: Guard, request: MutableMapping[str, Any], size: int) -> None:
    if size > MAX_GUARDED:
        message = f"A request to a project with guardrails has at most {MAX_GUARDED:,} bytes."
        raise Refusal(413, FILTERED, message)
    for name in ("prompt", "input"):
        asked = request.get(name)
        numbers = asked if isinstance(asked, list) else []
        if any(isinstance(one, int) or _has_numbers(one) for one in numbers):
            message = f"Guardrails read texts: send the {name} as text, not as tokens."
            raise Refusal(400, FILTERED, message)
    try:
        for name in ASKED:
            if name in request:
                request[name] = guard.read_all(request[name])
    except Blocked as blocked:
        message = f"The guardrail {str(blocked)!r} of this project does not allow this request."
        raise Refusal(400, FILTERED, message) from None


def _has_numbers(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(one, int) for one in value)


def check_answer(guard: Guard, path: str, data: bytes) -> bytes:
    """Mask a whole answer, or end it where a guardrail blocks it. Raises Refusal."""
    if len(data) > MAX_GUARDED:
        message = f"An answer of a project with guardrails has at most {MAX_GUARDED:,} bytes."
        raise Refusal(400, FILTERED, message)
    try:
        answer = orjson.loads(data)
    except orjson.JSONDecodeError:
        return data
    if not isinstance(answer, dict):
        return data
    try:
        for name in ANSWERED:
            if name in answer:
                answer[name] = guard.read_all(answer[name])
    except Blocked as blocked:
        if path not in (CHAT, TEXT):
            message = f"The guardrail {str(blocked)!r} of this project does not allow this answer."
            raise Refusal(400, FILTERED, message) from None
        _blank(answer)
    for choice in _choices(answer):
        if "logprobs" in choice:
            choice["logprobs"] = None  # they spell out what was masked
    return orjson.dumps(answer)


def _choices(answer: dict[str, Any]) -> list[dict[str, Any]]:
    choices = answer.get("choices")
    return [one for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []


def _blank(answer: dict[str, Any]) -> None:
    """Leave nothing of what the choices of an answer say."""
    for choice in _choices(answer):
        empty = {"text": ""} if "text" in choice else {"message": _NOTHING}
        choice.update(empty, finish_reason=FILTERED)
