"""Guardrails on a stream: its events go on as soon as what they say is decided. Pure."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from karez.serving.guards import FILTERED, Blocked, Guard
from karez.serving.stream_log import CHAT, DONE, TEXT

_ONE_PIECE = ("content", "reasoning_content", "refusal")


class _Template(NamedTuple):
    """An event that had a piece of a text, of which others are made."""

    head: bytes
    data: dict[str, Any]
    holder: dict[str, Any]
    key: str


@dataclass(slots=True)
class GuardedStream:
    """The events of one stream, as they come."""

    guard: Guard
    path: str
    is_blocked: bool = False
    _templates: dict[Any, _Template] = field(default_factory=dict)
    """Channel of a text -> the last event that had a piece of it."""

    def pass_on(self, events: bytes) -> bytes:
        """Take in whole events; returns those that may be sent now."""
        return b"".join(self._event(event + b"\n\n") for event in events.split(b"\n\n") if event)

    def finish(self) -> bytes:
        """What was held back of a stream that has ended."""
        return b"" if self.is_blocked else self._guarded(self.flush)

    def _event(self, event: bytes) -> bytes:
        if self.is_blocked:
            return b""
        if event == DONE:
            return self._guarded(self.flush) + (b"" if self.is_blocked else DONE)
        head, data = _parts(event)
        if data is None:
            return event
        return self._guarded(lambda: self._read(head, data))

    def _guarded(self, act: Callable[[], bytes]) -> bytes:
        try:
            return act()
        except Blocked as blocked:
            self.is_blocked = True
            return self._last(str(blocked))

    def _read(self, head: bytes, data: dict[str, Any]) -> bytes:
        ended, pieces = _ended(self.path, data), list(_pieces(self.path, data))
        for channel, holder, key in pieces:
            is_last = channel[0] in ended
            holder[key] = self.guard.read(holder[key], channel, is_last=is_last)
            self._templates[channel] = _Template(head, data, holder, key)
            if is_last:
                del self._templates[channel]
        before = self.flush(ended) if ended else b""
        if not pieces and self.path not in (CHAT, TEXT):
            data = self.guard.read_all(data)  # such as the whole text at the end of a response
        for choice in data.get("choices") or ():
            if isinstance(choice, dict) and "logprobs" in choice:
                choice["logprobs"] = None
        return before + head + b"data: %s\n\n" % orjson.dumps(data)

    def flush(self, ended: Collection[Any] | None = None) -> bytes:
        """What was held back of texts that have ended; None: of all. Raises Blocked."""
        sent = b""
        for channel in [one for one in self._templates if ended is None or one[0] in ended]:
            template = self._templates.pop(channel)
            text = self.guard.read("", channel, is_last=True)
            if text:
                template.holder[template.key] = text
                sent += template.head + b"data: %s\n\n" % orjson.dumps(template.data)
        return sent

    def _last(self, name: str) -> bytes:
        """What ends a stream that a guardrail has blocked."""
        if self.path in (CHAT, TEXT):
            data = next((one.data for one in self._templates.values()), {})
            known = {key: data[key] for key in data if key not in ("choices", "usage")}
            rest: dict[str, Any] = {"delta": {}} if self.path == CHAT else {"text": ""}
            choice = {"index": 0, "finish_reason": FILTERED, **rest}
            return b"data: %s\n\n" % orjson.dumps({**known, "choices": [choice]}) + DONE
        message = f"The guardrail {name!r} of this project does not allow this answer."
        error = {"type": "error", "error": {"type": FILTERED, "message": message}}
        return b"event: error\ndata: %s\n\n" % orjson.dumps(error)


def _parts(event: bytes) -> tuple[bytes, dict[str, Any] | None]:
    """The lines of an event before its data, and its data; None: it has none to read."""
    at = event.find(b"data:")
    if at < 0:
        return event, None
    try:
        data = orjson.loads(event[at + 5 :].strip())
    except orjson.JSONDecodeError:
        return event, None
    return event[:at], data if isinstance(data, dict) else None


def _pieces(path: str, data: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any], str]]:
    """The pieces of texts of an event: (channel, what has it, its key)."""
    if path in (CHAT, TEXT):
        for choice in data.get("choices") or ():
            yield from _of_choice(choice)
        return
    delta = data.get("delta")
    where = data.get("index", data.get("output_index"))
    if isinstance(delta, str):
        yield (where, data.get("content_index")), data, "delta"
    elif isinstance(delta, dict):
        for key in ("text", "thinking", "partial_json"):
            if isinstance(delta.get(key), str):
                yield (where, key), delta, key


def _of_choice(choice: Any) -> Iterator[tuple[Any, dict[str, Any], str]]:
    if not isinstance(choice, dict):
        return
    index = choice.get("index", 0)
    if isinstance(choice.get("text"), str):
        yield (index, "text"), choice, "text"
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return
    for key in _ONE_PIECE:
        if isinstance(delta.get(key), str):
            yield (index, key), delta, key
    for call in delta.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict) and isinstance(function.get("arguments"), str):
            yield (index, "tool", call.get("index")), function, "arguments"


def _ended(path: str, data: dict[str, Any]) -> Collection[Any]:
    """The indices of the texts that end with an event."""
    if path in (CHAT, TEXT):
        return {
            choice.get("index", 0)
            for choice in data.get("choices") or ()
            if isinstance(choice, dict) and choice.get("finish_reason")
        }
    kind = str(data.get("type", ""))
    is_end = kind == "content_block_stop" or kind.endswith(".done")
    return {data.get("index", data.get("output_index"))} if is_end else ()
