"""Pieces of processes' output as lines for a terminal. Pure.

A process writes when it likes: a piece may end within a line, a progress bar is one line that is
written again and again, and bytes that steer a terminal are not meant for the reader's.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

PROGRESS_S = 10.0
"""Seconds between two looks at a line that a program writes again and again."""
MAX_LINE = 1 << 16
"""Characters after which a line is broken: else one without an end would fill the memory."""
_COLOUR = r"\x1b\[[0-9;:]*m"
_SEQUENCE = re.compile(
    rf"(?P<colour>{_COLOUR})"
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: moves the cursor, clears the screen
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"  # OSC and other strings: titles, the clipboard
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROLS = {code: chr(0x2400 + code) for code in range(32) if chr(code) != "\t"}
_CONTROLS |= {0x7F: "\u2421", **dict.fromkeys(range(0x80, 0xA0), "\ufffd")}


@dataclass(slots=True)
class LineAssembler:
    """Lines of several processes, each put together from its pieces."""

    colours: bool = False
    """Whether colours stay; all else that steers a terminal goes."""
    _open: dict[str, str] = field(default_factory=dict)
    _shown: dict[str, tuple[float, str]] = field(default_factory=dict)
    """Process -> when its open line was shown, and as what."""

    def add(self, process: str, text: str, now: float) -> Iterator[str]:
        """Take a piece; yields the lines that are complete. `now` is in seconds."""
        *lines, rest = (self._open.get(process, "") + text).split("\n")
        for line in lines:
            yield from self._end(process, line)
        while len(rest) > MAX_LINE and "\r" not in rest:
            yield self._clean(rest[:MAX_LINE])
            rest = rest[MAX_LINE:]
        if "\r" in rest:
            rest = rest[-MAX_LINE:]
            yield from self._progress(process, rest, now)
        self._open[process] = rest

    def end(self) -> Iterator[tuple[str, str]]:
        """Yield (process, line) of the lines that were never ended."""
        for process, rest in self._open.items():
            for line in self._end(process, rest) if rest else ():
                yield process, line
        self._open.clear()

    def _end(self, process: str, line: str) -> Iterator[str]:
        shown = self._clean(_latest(line))
        before = self._shown.pop(process, (0.0, ""))[1]
        if shown != before or not before:
            yield shown

    def _progress(self, process: str, line: str, now: float) -> Iterator[str]:
        at, before = self._shown.get(process, (now - PROGRESS_S, ""))
        shown = self._clean(_latest(line))
        if now - at >= PROGRESS_S and shown.strip() and shown != before:
            self._shown[process] = (now, shown)
            yield shown

    def _clean(self, line: str) -> str:
        kept = _SEQUENCE.sub(lambda found: (found["colour"] or "") if self.colours else "", line)
        parts = re.split(f"({_COLOUR})", kept)
        parts[::2] = [part.translate(_CONTROLS) for part in parts[::2]]
        return "".join(parts) + "\x1b[0m" * (len(parts) > 1)


def _latest(line: str) -> str:
    """What a terminal would show of a line that was written again and again."""
    states = [state for state in line.split("\r") if state]
    return states[-1] if states else ""
