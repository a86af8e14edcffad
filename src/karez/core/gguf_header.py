"""The facts at the beginning of a GGUF file, read without its tensors. Pure.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Mapping
from typing import BinaryIO

MAGIC = b"GGUF"
MOST_KEYS = 4096
MOST_NAME = 1024
MOST_TEXT = 4096
"""Bytes of one text that are kept; a longer one is no fact."""
MOST_BYTES = 64 << 20
"""Of a header: the vocabularies of today take 10 MiB."""
MOST_TEXTS = 1 << 20
"""Texts of an array: four times as many as the largest vocabularies have."""
LENGTH = ".length"
"""What is put to the key of an array, whose length alone is told."""
_SCALARS: Mapping[int, str] = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
"""Kind of a scalar -> its form for struct; 8 and 9 are texts and arrays."""
_TEXT, _ARRAY = 8, 9
Fact = str | int | float | bool


def read_gguf_facts(file: BinaryIO) -> Mapping[str, Fact]:
    """Key -> value of a header; of arrays, key + LENGTH -> the number of their elements.

    Raises:
        ValueError: It is no GGUF file, or a broken one, or its header is too long to be one.
    """
    return _Header(file).facts()


class _Header:
    """What of a header is read already."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, MOST_BYTES

    def facts(self) -> dict[str, Fact]:
        if self._take(4) != MAGIC:
            raise ValueError("the file does not begin as GGUF does")
        version, _, count = struct.unpack("<IQQ", self._take(20))
        if version not in (2, 3) or count > MOST_KEYS:
            raise ValueError(f"a GGUF file of version {version} with {count} keys cannot be read")
        found: dict[str, Fact] = {}
        for _ in range(count):
            name = self._text(MOST_NAME)
            (kind,) = struct.unpack("<I", self._take(4))
            if kind == _ARRAY:
                found[name + LENGTH] = self._skip_array()
            else:
                found[name] = self._value(kind)
        return found

    def _value(self, kind: int) -> Fact:
        if kind == _TEXT:
            return self._text(MOST_TEXT)
        if kind not in _SCALARS:
            raise ValueError(f"a value in the header is of the unknown kind {kind}")
        form = f"<{_SCALARS[kind]}"
        value: Fact = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return value

    def _skip_array(self) -> int:
        """Leave an array out; returns how many elements it has."""
        kind, count = struct.unpack("<IQ", self._take(12))
        if kind in _SCALARS:
            self._skip(count * struct.calcsize(f"<{_SCALARS[kind]}"))
        elif kind == _TEXT and count <= MOST_TEXTS:
            for _ in range(count):
                (size,) = struct.unpack("<Q", self._take(8))
                self._skip(size)
        else:
            raise ValueError(f"an array in the header has {count} elements of kind {kind}")
        return int(count)

    def _text(self, most: int) -> str:
        (size,) = struct.unpack("<Q", self._take(8))
        if size > most:
            self._skip(size)
            return ""
        return self._take(size).decode(errors="replace")

    def _skip(self, size: int) -> None:
        while size > 0:
            size -= len(self._take(min(size, 1 << 16)))

    def _take(self, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise ValueError(f"its header is longer than {MOST_BYTES} bytes")
        data = self._file.read(size)
        if len(data) < size:
            raise ValueError("the file ends within its header")
        return data
