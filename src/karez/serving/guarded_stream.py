"""Guardrails on a stream: its events go on as soon as what they say is decided. Pure."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from karez.serving.guards import ABOUT, FILTERED, SPELLED, Blocked, Guard
from karez.serving.stream_log import CHAT, DONE, TEXT

_FIXED = frozenset({"role", "type", "id", "finish_reason", "object", "stop_reason"})
"""Fields of a choice that say nothing."""
Path = tuple[str | int, ...]
Piece = tuple[str, Path, Any, Any]
"""Of a text: the index of its answer, where it is in that, what has it, and its key there."""


@dataclass(slots=True)
class GuardedStream:
    """The events of one stream, as they come."""

    guard: Guard
    path: str
    is_blocked: bool = False
    _makers: dict[tuple[str, Path], Callable[[str], bytes]] = field(default_factory=dict)
    """Text that has begun -> what makes an event of a piece of it."""
    _identity: dict[str, Any] = field(default_factory=dict)
    _open: dict[str, Any] = field(default_factory=dict)
    """Index of an answer that has not ended, as text -> as it came."""

    def pass_on(self, events: bytes) -> bytes:
        """Take in whole events; returns those that may be sent now."""
        parts = (event + b"\n\n" for event in events.split(b"\n\n") if event)
        return b"".join(map(self._event, parts))

    def finish(self) -> bytes:
        """What was held back of a stream that has ended."""
        return b"" if self.is_blocked else self._guarded(self._flush)

    def _event(self, event: bytes) -> bytes:
        if self.is_blocked:
            return b""
        if event == DONE:
            return self.finish() + (b"" if self.is_blocked else DONE)
        head, text = _parts(event)
        if not text:
            return event
        try:
            data = orjson.loads(text)
        except orjson.JSONDecodeError:
            data = None
        if isinstance(data, dict):
            return self._guarded(lambda: self._read(head, data))
        return self._guarded(lambda: self._plain(head, text))

    def _plain(self, head: bytes, text: bytes) -> bytes:
        """An event of another form: a text."""
        return _event(head, self.guard.read(text.decode(errors="replace")).encode())

    def _guarded(self, act: Callable[[], bytes]) -> bytes:
        try:
            return act()
        except Blocked as blocked:
            self.is_blocked = True
            return self.last(str(blocked))

    def _read(self, head: bytes, data: dict[str, Any]) -> bytes:
        is_openai = self.path in (CHAT, TEXT)
        if is_openai and not self._identity:
            self._identity = {key: data[key] for key in ABOUT & data.keys() if key != "usage"}
        pieces = list(self._pieces(data, is_openai=is_openai))
        ended = self._ended(data)
        for index, path, holder, key in pieces:
            is_last = index in ended
            holder[key] = self.guard.read(holder[key], (index, path), is_last=is_last)
            self._makers[index, path] = self._maker(head, data, index, path)
            if is_last:
                del self._makers[index, path]
        before = self._flush(ended) if ended else b""
        for index in ended:
            self._open.pop(index, None)
        if is_openai or not pieces:
            self.guard.read_fields(data, {*ABOUT, "choices"} if is_openai else ABOUT)
        return before + _event(head, orjson.dumps(data))

    def _pieces(self, data: dict[str, Any], *, is_openai: bool) -> Iterator[Piece]:
        if not is_openai:
            return _of_event(data)
        return _of_choices(data.get("choices"), is_strict=self.guard.is_strict)

    def _maker(
        self, head: bytes, data: dict[str, Any], index: str, path: Path
    ) -> Callable[[str], bytes]:
        """What makes an event of a piece of a text, with nothing else in it."""
        if self.path not in (CHAT, TEXT):
            return lambda text: _event(head, orjson.dumps(_with(data, path, text)))
        number = self._open.get(index, 0)

        def make(text: str) -> bytes:
            choice = {"index": number, **_nested(path, text)}
            return _event(b"", orjson.dumps({**self._identity, "choices": [choice]}))

        return make

    def _ended(self, data: dict[str, Any]) -> Collection[str]:
        """The indices of the answers or texts that end with an event."""
        if self.path not in (CHAT, TEXT):
            kind = str(data.get("type", ""))
            is_end = kind == "content_block_stop" or kind.endswith(".done")
            return {_index(data)} if is_end else ()
        ended = set()
        choices = data.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                index = str(choice.get("index", 0))
                self._open.setdefault(index, choice.get("index", 0))
                if choice.get("finish_reason"):
                    ended.add(index)
        return ended

    def _flush(self, ended: Collection[str] | None = None) -> bytes:
        """What was held back of texts that have ended; None: of all. Raises Blocked."""
        sent = b""
        for channel in [one for one in self._makers if ended is None or one[0] in ended]:
            make = self._makers.pop(channel)
            if text := self.guard.read("", channel, is_last=True):
                sent += make(text)
        return sent

    def last(self, name: str) -> bytes:
        """What ends a stream that a guardrail has blocked."""
        if self.path in (CHAT, TEXT):
            rest: dict[str, Any] = {"delta": {}} if self.path == CHAT else {"text": ""}
            choices = [
                {"index": index, "finish_reason": FILTERED, **rest}
                for index in self._open.values() or (0,)
            ]
            return _event(b"", orjson.dumps({**self._identity, "choices": choices})) + DONE
        message = f"The guardrail {name!r} of this project does not allow this answer."
        error = {"type": "error", "error": {"type": FILTERED, "message": message}}
        return _event(b"event: error\n", orjson.dumps(error))


def _event(head: bytes, data: bytes) -> bytes:
    return head + b"data: " + data.replace(b"\n", b"\ndata: ") + b"\n\n"


def _parts(event: bytes) -> tuple[bytes, bytes]:
    """The lines of an event that have no data, and its data."""
    lines = event.rstrip(b"\n").split(b"\n")
    data = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
    head = b"".join(line + b"\n" for line in lines if not line.startswith(b"data:"))
    return head, b"\n".join(data)


def _index(data: dict[str, Any]) -> str:
    return str(data.get("index", data.get("output_index")))


def _of_choices(choices: Any, *, is_strict: bool) -> Iterator[Piece]:
    """The pieces of texts in the choices of an event."""
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            for key in SPELLED & choice.keys() if is_strict else ():
                del choice[key]
            index = str(choice.get("index", 0))
            yield from ((index, *found) for found in _strings(choice, ()))


def _strings(value: Any, path: Path) -> Iterator[tuple[Path, Any, Any]]:
    """All texts in a value: where each is, what has it, and its key there."""
    if isinstance(value, dict):
        pairs = [(key, key) for key in value if key not in _FIXED]
    elif isinstance(value, list):
        numbers = [one.get("index") if isinstance(one, dict) else None for one in value]
        pairs = [(at, n if type(n) is int else at) for at, n in enumerate(numbers)]
    else:
        return
    for key, name in pairs:
        if isinstance(value[key], str):
            yield (*path, name), value, key
        else:
            yield from _strings(value[key], (*path, name))


def _nested(path: Path, text: str) -> dict[str, Any]:
    """An object that has a text at a path, and nothing else."""
    value: Any = text
    for key in reversed(path):
        if isinstance(key, int):
            value = [{"index": key, **value} if isinstance(value, dict) else value]
        else:
            value = {key: value}
    return value if isinstance(value, dict) else {}


def _of_event(data: dict[str, Any]) -> Iterator[Piece]:
    """The piece of a text in an event of the other APIs."""
    delta = data.get("delta")
    if isinstance(delta, str):
        data.pop("logprobs", None)
        yield _index(data), ("delta", str(data.get("content_index"))), data, "delta"
    elif isinstance(delta, dict) and data.get("type") == "content_block_delta":
        for key in [key for key in delta if key not in _FIXED and isinstance(delta[key], str)]:
            yield _index(data), ("delta", key), delta, key


def _with(data: dict[str, Any], path: Path, text: str) -> dict[str, Any]:
    """An event of another API with another piece of its text."""
    delta = data["delta"]
    return {**data, "delta": {**delta, path[-1]: text} if isinstance(delta, dict) else text}
