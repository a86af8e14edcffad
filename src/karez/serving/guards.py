"""The guardrails of a project, at work on one request and its answer. Pure.

What they find in a request is masked before it goes anywhere, or the request is refused. Whole
answers are read here, streams in guarded_stream.py. What cannot be read is treated as text:
nothing passes because its form is not known.
"""

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson

from karez.core.guardrails import GuardAction, Guardrail, Side
from karez.core.routing import Route
from karez.serving.answers import Refusal
from karez.serving.relay_counts import RelayCounts
from karez.serving.text_patterns import Finder, TextInPieces, TooManyCandidates

FILTERED = "content_filter"
"""OpenAI's name for the end of an answer that was blocked, and the type of such an error."""
MAX_GUARDED = 1 << 20
"""Bytes of a request, or of a whole answer, that guardrails read: more would hold up all others."""
MAX_TEXTS = 20_000
"""Texts in one of them."""
ABOUT = frozenset(
    {"model", "id", "object", "created", "created_at", "usage", "system_fingerprint", "timings"}
)
"""Fields of requests and answers in which nobody says anything."""
SPELLED = frozenset(
    {"logprobs", "top_logprobs", "token_ids", "prompt_token_ids", "prompt_logprobs"}
)
"""Fields that tell a text once more, token by token."""
_NOTHING = {"role": "assistant", "content": ""}
_MEDIA = frozenset({"input_audio", "audio"})


class Blocked(Exception):
    """A guardrail ends a request or an answer."""


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
    """Texts that come in pieces."""

    def read(self, text: str, channel: Any, *, is_last: bool) -> tuple[str, bool]:
        """Take in a piece of a text, or a whole one where `channel` is None.

        Returns:
            What is decided, and whether something was found.
        """
        guardrail = self.guardrail
        if guardrail.characters:
            before, self.size = self.size, self.size + len(text)
            return text, before <= guardrail.characters < self.size
        pieces = None if channel is None else self.channels.get(channel)
        if pieces is None:
            pieces = TextInPieces(_finder(guardrail))
            if channel is not None:
                self.channels[channel] = pieces
        masks = guardrail.action == GuardAction.MASK
        try:
            decided = pieces.feed(text, masks=masks, is_last=is_last)
        except TooManyCandidates as error:
            if guardrail.action == GuardAction.COUNT:
                return text, False
            raise Blocked(f"{guardrail.name} ({error})") from None
        found = len(pieces.matches) > 0
        pieces.matches.clear()
        return (text if guardrail.action == GuardAction.COUNT else decided), found


@dataclass(slots=True)
class Guard:
    """The guardrails that read one side of a request."""

    guardrails: Sequence[Guardrail]
    side: Side
    found: list[Guardrail] = field(default_factory=list)
    """Those that found something, each as often as it did."""
    _readers: list[_Reader] = field(default_factory=list)
    _texts: int = 0

    def __post_init__(self) -> None:
        own = [one for one in self.guardrails if one.reads(self.side) and not one.model]
        self._readers = list(map(_Reader, own))

    @property
    def is_idle(self) -> bool:
        """Whether none reads this side."""
        return not self._readers

    @property
    def is_strict(self) -> bool:
        """Whether one changes something, so that nothing may pass it unread."""
        return any(one.guardrail.action != GuardAction.COUNT for one in self._readers)

    def read(self, text: str, channel: Any = None, *, is_last: bool = True) -> str:
        """Take in a piece of a text, or a whole one; returns what may be passed on.

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

        Raises Blocked, and RecursionError if it is nested too deeply.
        """
        if isinstance(value, str):
            self._texts += 1
            if self._texts > MAX_TEXTS and self.is_strict:
                raise Blocked(f"guardrails (more than {MAX_TEXTS:,} texts)")
            return value if value.startswith("data:") else self.read(value)
        if isinstance(value, list):
            return [self.read_all(one) for one in value]
        if isinstance(value, dict):
            is_media = value.get("type") == "base64"
            return {key: self._of_key(key, one, is_media=is_media) for key, one in value.items()}
        return value

    def _of_key(self, key: Any, value: Any, *, is_media: bool) -> Any:
        if key in SPELLED and self.is_strict:
            return None
        is_read = key not in ("role", "type") and not (key == "data" and is_media)
        return self.read_all(value) if is_read and key not in _MEDIA else value

    def read_fields(self, body: MutableMapping[str, Any], but: Iterable[str]) -> None:
        """Read all fields of a request or an answer, in place, but some.

        Raises Blocked, and RecursionError if it is nested too deeply.
        """
        for key in [key for key in body if key not in but]:
            body[key] = self._of_key(key, body[key], is_media=False)


NOT_SAID = ABOUT | {"models", "user", "service_tier", "prompt_cache_key", "tool_choice"}


def check_request(
    route: Route, request: MutableMapping[str, Any], size: int, counts: RelayCounts
) -> Sequence[Guardrail]:
    """Mask what a request to a model asks, in place; returns what has found something.

    Raises Refusal.
    """
    if not route.guardrails:
        return ()
    guard = Guard(route.guardrails, Side.INPUT)
    asks = any(one.model and one.reads(Side.INPUT) and one.blocks for one in route.guardrails)
    if guard.is_strict or asks:
        _check_form(request, size)
    if guard.is_idle:
        return ()
    try:
        guard.read_fields(request, NOT_SAID)
    except Blocked as blocked:
        message = f"The guardrail {str(blocked)!r} of this project does not allow this request."
        raise Refusal(400, FILTERED, message) from None
    except RecursionError:
        raise Refusal(400, FILTERED, "The body is nested too deeply to be read.") from None
    finally:
        counts.found(route.project, guard.found)
    return guard.found


def _check_form(request: MutableMapping[str, Any], size: int) -> None:
    if size > MAX_GUARDED:
        message = f"A request to a project with guardrails has at most {MAX_GUARDED:,} bytes."
        raise Refusal(413, FILTERED, message)
    for name in ("prompt", "input"):
        asked = request.get(name)
        parts = asked if isinstance(asked, list) else []
        parts = [one for part in parts for one in (part if isinstance(part, list) else [part])]
        if any(isinstance(one, int | float) for one in parts):
            message = f"Guardrails read texts: send the {name} as text, not as tokens."
            raise Refusal(400, FILTERED, message)


def check_answer(guard: Guard, data: bytes) -> bytes:
    """Mask a whole answer, or end it where a guardrail blocks it. Raises Refusal."""
    if len(data) > MAX_GUARDED and guard.is_strict:
        message = f"An answer of a project with guardrails has at most {MAX_GUARDED:,} bytes."
        raise Refusal(400, FILTERED, message)
    try:
        answer = orjson.loads(data)
    except orjson.JSONDecodeError:
        return _or_refused(lambda: guard.read(data.decode(errors="replace")).encode())
    if not isinstance(answer, dict):
        return _or_refused(lambda: orjson.dumps(guard.read_all(answer)))
    try:
        guard.read_fields(answer, ABOUT)
    except Blocked as blocked:
        return _without_choices(answer, str(blocked))
    return orjson.dumps(answer)


def block_answer(data: bytes, names: str) -> bytes:
    """What is left of a whole answer that guardrails do not allow. Raises Refusal."""
    try:
        answer = orjson.loads(data)
    except orjson.JSONDecodeError:
        answer = None
    return _without_choices(answer if isinstance(answer, dict) else {}, names)


def _without_choices(answer: Mapping[str, Any], names: str) -> bytes:
    choices = answer.get("choices")
    if not isinstance(choices, list):
        raise _refused(names)
    rest = {key: answer[key] for key in answer if key in ABOUT}
    return orjson.dumps({**rest, "choices": [_blank(choice) for choice in choices]})


def _or_refused(read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except Blocked as blocked:
        raise _refused(str(blocked)) from None


def _refused(names: str) -> Refusal:
    message = f"The guardrail {names!r} of this project does not allow this answer."
    return Refusal(400, FILTERED, message)


def _blank(choice: Any) -> dict[str, Any]:
    """What is left of a choice whose answer is blocked."""
    is_text = isinstance(choice, dict) and "text" in choice
    index = choice.get("index", 0) if isinstance(choice, dict) else 0
    said: dict[str, Any] = {"text": ""} if is_text else {"message": _NOTHING}
    return {"index": index, **said, "finish_reason": FILTERED}
