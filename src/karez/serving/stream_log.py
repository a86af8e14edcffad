"""What a caller has been sent of a stream, so that another replica can go on with it. Pure.

A replica that takes over gets the prompt and the text sent so far. Its events are given the
identity of the stream's first, and its usage is added to what was sent, so that the caller sees
one stream.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from karez.core.engines import TOKENS
from karez.serving.token_usage import MAX_TOKENS, TokenUsage

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
MAX_TEXT = 4 << 20
"""Characters of one stream that are kept; a longer one is not taken over."""
MAX_EVENT_BYTES = 16 << 20
DONE = b"data: [DONE]\n\n"
_ONE_ANSWER = ("n", "best_of")
_NOT_CONTINUED = (
    *("tools", "functions", "response_format", "grammar", "json_schema"),
    *("logprobs", "top_logprobs", "echo", "suffix"),
)
"""Fields by which an answer is more than its text: another replica cannot go on from the text."""
_GOES_ON: Mapping[str, bool] = {"continue_final_message": True, "add_generation_prompt": False}
"""By which vLLM is told that the last message is not over; others take that from its role."""
_IDENTITY = ("id", "created", "object", "model", "system_fingerprint")
_LIMITS = ("max_tokens", "max_completion_tokens", "n_predict")


class EventTooLarge(ValueError):
    """A replica sent an event without an end."""


@dataclass(slots=True)
class EventReader:
    """Server-sent events, put together from pieces of a stream."""

    _rest: bytes = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The events that are complete, each with the empty line that ends it.

        Raises EventTooLarge.
        """
        if b"\r" in data:
            data = data.replace(b"\r", b"")
        if not self._rest and data.endswith(b"\n\n") and data.find(b"\n\n") == len(data) - 2:
            return [data]  # as most pieces of a stream are
        *events, self._rest = (self._rest + data).split(b"\n\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise EventTooLarge(f"an event is larger than {MAX_EVENT_BYTES} bytes")
        return [event + b"\n\n" for event in events if event]


@dataclass(slots=True, kw_only=True)
class StreamLog:
    """The text, the tokens and the identity of one stream."""

    path: str
    request: Mapping[str, Any]
    wants_usage: bool
    """Whether the caller asked for usage; else its event is not passed on."""
    usage: TokenUsage
    is_done: bool = False
    """Whether the caller has all of it."""
    takeovers: int = 0
    _is_finished: bool = False
    """Whether the reason of the end was sent."""
    _is_plain: bool = True
    """Whether all that was sent is text."""
    _pieces: list[str] = field(default_factory=list)
    _size: int = 0
    _identity: dict[str, Any] = field(default_factory=dict)
    _has_role: bool = False
    """Whether the replicas before have told the role."""
    _sent_before: int = 0
    """Tokens that earlier replicas sent."""

    def pass_on(self, event: bytes) -> bytes:
        """Take in an event of a replica; returns what to send to the caller of it."""
        if event == DONE:
            self.is_done = True
            return event
        data = _data_of(event)
        if not isinstance(data, dict):
            return event
        if data.get("error"):
            self.is_done = True  # the engine itself ends the stream
            return event
        if self.path not in (CHAT, TEXT):
            self._count_other(data)
            return event
        return self._completion(event, data)

    def _completion(self, event: bytes, data: dict[str, Any]) -> bytes:
        choices = data.get("choices")
        if not choices:
            return self._usage(event, data)
        taken, told = self._take(choices), data.get(TOKENS)
        self.usage.completion += told if type(told) is int and 0 <= told < MAX_TOKENS else taken
        if not self._identity:
            self._identity = {key: data[key] for key in _IDENTITY if key in data}
        if not self.takeovers:
            if data.get("usage") is not None:
                self.usage.read(data)
            return event
        if self._has_role and self._is_role(choices):
            return b""
        if data.get("usage") is not None:
            self._add_usage(data)
        return _event({**data, **self._identity})

    def _take(self, choices: Any) -> int:
        """Note the text of an event; returns its tokens."""
        choice = choices[0] if isinstance(choices, list) and len(choices) == 1 else None
        if not isinstance(choice, dict):
            self._is_plain = False
            return 0
        if choice.get("finish_reason"):
            self._is_finished = True
        delta = choice.get("delta") if self.path == CHAT else choice
        if not isinstance(delta, dict):
            return 0
        thought = delta.get("reasoning_content")
        if thought or delta.get("tool_calls"):
            self._is_plain = False
        text = delta.get("content" if self.path == CHAT else "text")
        if not isinstance(text, str) or not text:
            return int(bool(thought))
        self._size += len(text)
        if self._size <= MAX_TEXT:
            self._pieces.append(text)
        return 1

    def _is_role(self, choices: Any) -> bool:
        """Whether an event only tells the role."""
        choice = choices[0] if isinstance(choices, list) else None
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(delta, dict) or "role" not in delta:
            return False
        return not delta.get("content") and not choice.get("finish_reason")

    def _usage(self, event: bytes, data: dict[str, Any]) -> bytes:
        """An event of usage alone."""
        if data.get("usage") is None:
            return event
        if self.takeovers:
            self._add_usage(data)
            event = _event({**data, **self._identity})
        else:
            self.usage.read(data)
        return event if self.wants_usage else b""

    def _add_usage(self, data: dict[str, Any]) -> None:
        """Correct the usage of a replica that took over: what was sent was no prompt."""
        self.usage.read(data)
        self.usage.prompt = max(0, self.usage.prompt - self._sent_before)
        self.usage.completion += self._sent_before
        data["usage"] = {
            "prompt_tokens": self.usage.prompt,
            "completion_tokens": self.usage.completion,
            "total_tokens": self.usage.prompt + self.usage.completion,
        }

    def _count_other(self, data: dict[str, Any]) -> None:
        """Count a stream of another API, which is not taken over."""
        self._is_plain = False
        kind = data.get("type")
        if kind in ("message_stop", "response.completed", "response.failed"):
            self.is_done = True
        if not self.usage.read(data) and kind in (
            "content_block_delta",
            "response.output_text.delta",
        ):
            self.usage.completion += 1

    @property
    def rest(self) -> bytes | None:
        """What ends a stream that lost its replica after the last of its text; else None."""
        if self._is_finished:
            return DONE
        if self.path not in (CHAT, TEXT) or not self._identity or self._left() != 0:
            return None
        rest: dict[str, Any] = {"delta": {}} if self.path == CHAT else {"text": ""}
        choice = {"index": 0, "finish_reason": "length", **rest}
        return _event({**self._identity, "choices": [choice]}) + DONE

    def _left(self) -> int | None:
        """Tokens that the caller still wants; None: it named no limit."""
        limits = [self.request.get(name) for name in _LIMITS]
        most = [limit for limit in limits if isinstance(limit, int) and limit > 0]
        return max(0, min(most) - self.usage.completion) if most else None

    def take_over(self) -> dict[str, Any] | None:
        """The request by which another replica goes on; None if none can."""
        if self._size > MAX_TEXT or not self._is_plain or self.path not in (CHAT, TEXT):
            return None
        self._sent_before = self.usage.completion
        text = "".join(self._pieces)
        request = dict(self.request) if not text else continued(self.path, self.request, text)
        if request is None:
            return None
        self.takeovers += 1
        self._has_role = bool(self._identity)
        left = self._left()
        for name in _LIMITS:
            if left is not None and name in request:
                request[name] = left
        return request


def continued(path: str, request: Mapping[str, Any], text: str) -> dict[str, Any] | None:
    """A request whose answer goes on from a text; None if no request asks for that."""
    if any(request.get(name) for name in _NOT_CONTINUED):
        return None
    if any(request.get(name) not in (None, 1) for name in _ONE_ANSWER):
        return None
    if path == TEXT:
        prompt = request.get("prompt")
        return {**request, "prompt": prompt + text} if isinstance(prompt, str) else None
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        return None
    last = messages[-1]
    if isinstance(last, Mapping) and last.get("role") == "assistant":
        if not isinstance(last.get("content"), str):
            return None
        return {
            **request,
            **_GOES_ON,
            "messages": [*messages[:-1], {**last, "content": last["content"] + text}],
        }
    return {**request, **_GOES_ON, "messages": [*messages, {"role": "assistant", "content": text}]}


def _data_of(event: bytes) -> Any:
    """The JSON of an event; None if it has none."""
    try:
        if event.startswith(b"data: {") and b"\n" not in event[:-2]:
            return orjson.loads(event[6:])  # as almost all of them are
        lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
        return orjson.loads(b"\n".join(lines)) if lines else None
    except orjson.JSONDecodeError:
        return None


def _event(data: Mapping[str, Any]) -> bytes:
    return b"data: %s\n\n" % orjson.dumps(data)
