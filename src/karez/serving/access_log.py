"""The access log: a line of JSON for each request that has ended, in files that do not grow."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

KEPT = 4
"""Full files that are kept: the newest has the suffix .1."""
ACCESS_LOG_BYTES = 64 * 2**20


class AccessLog:
    """The file of one gateway process."""

    def __init__(self, path: Path, *, has_text: bool = False, most: int = ACCESS_LOG_BYTES) -> None:
        """Append to a file of at most so many bytes, which only its owner can read.

        Raises OSError.
        """
        self.has_text = has_text
        self._path, self._most = path, most
        self._open()

    def add(self, lines: Sequence[dict[str, Any]]) -> None:
        """Append lines. Raises OSError."""
        data = b"".join(map(_written, lines))
        if self._size and self._size + len(data) > self._most:
            self._rotate()
        self._size += len(data)
        while data:
            data = data[os.write(self._file, data) :]

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._file).st_size

    def _rotate(self) -> None:
        for number in range(KEPT - 1, -1, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        before = self._file
        self._open()
        os.close(before)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path


def _written(line: dict[str, Any]) -> bytes:
    """A line as JSON; of one that is nested too deeply only what is not nested."""
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        flat = {key: value for key, value in line.items() if not isinstance(value, list | dict)}
        return orjson.dumps(flat, option=orjson.OPT_APPEND_NEWLINE)
