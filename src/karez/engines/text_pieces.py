"""Text of an answer, from its tokens as they come. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

BROKEN = "\ufffd"
"""What a decoder writes for bytes that are no whole character yet."""
MOST_WAITS = 8
"""Times that text waits for the rest of a character: UTF-8 has at most four bytes, and what comes
brings one at least; what is broken after these is broken in itself."""


@dataclass(slots=True, kw_only=True)
class TextPieces:
    """The text of one answer, up to the first of its stops."""

    decode: Callable[[Sequence[int]], str]
    stops: tuple[str, ...] = ()
    is_stopped: bool = False
    """Whether a stop has come: what follows is not wanted."""
    _tokens: list[int] = field(default_factory=list)
    """The last tokens: those whose text was given, as the beginning of what follows, and others."""
    _given: int = 0
    """Of those, the tokens whose text was given."""
    _waits: int = 0
    _held: str = ""
    """Text that may be the beginning of a stop."""

    def feed(self, tokens: Sequence[int]) -> str:
        """The text that these tokens complete."""
        if self.is_stopped:
            return ""
        self._tokens.extend(tokens)
        text = self._complete(is_last=False)
        return self._without_stops(text)

    def finish(self) -> str:
        """The rest."""
        if self.is_stopped:
            return ""
        text = self._without_stops(self._complete(is_last=True))
        if self.is_stopped:
            return text
        rest, self._held = self._held, ""
        return text + rest

    def _complete(self, *, is_last: bool) -> str:
        """The text of what has come, unless it ends within a character.

        Tokens are decoded with those before them, since a decoder may write the first one of a
        text otherwise, such as without its space.
        """
        before = self.decode(self._tokens[: self._given])
        now = self.decode(self._tokens)
        is_broken = now.endswith(BROKEN)
        self._waits = self._waits + 1 if is_broken else 0
        if len(now) <= len(before) or (is_broken and self._waits <= MOST_WAITS and not is_last):
            return ""
        self._waits = 0
        self._tokens = self._tokens[self._given :]
        self._given = len(self._tokens)
        return now[len(before) :]

    def _without_stops(self, text: str) -> str:
        if not self.stops:
            return text
        text = self._held + text
        found = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        if found:
            self.is_stopped, self._held = True, ""
            return text[: min(found)]
        hold = max(_begun(text, stop) for stop in self.stops)
        self._held = text[len(text) - hold :]
        return text[: len(text) - hold]


def _begun(text: str, stop: str) -> int:
    """Characters at the end of a text that a stop may begin with."""
    most = min(len(text), len(stop) - 1)
    return next((n for n in range(most, 0, -1) if text.endswith(stop[:n])), 0)
