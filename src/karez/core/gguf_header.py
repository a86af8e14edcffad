"""The facts at the beginning of a GGUF file, read without its tensors. Pure.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Mapping
from typing import BinaryIO

MAGIC = b"GGUF"
MOST_KEYS = 4096
MOST_TEXT = 1 << 20
"""Bytes of one text that are read; a longer one is no fact."""
MOST_SKIPPED = 256 << 20
_SCALARS: Mapping[int, str] = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
"""Kind of a scalar -> its form for struct; 8 and 9 are texts and arrays."""
_TEXT, _ARRAY = 8, 9
Fact = str | int | float | bool


def read_gguf_facts(file: BinaryIO) -> Mapping[str, Fact]:
    """Key -> value of a header; arrays have the number of their elements.

    Raises:
        ValueError: It is no GGUF file, or a broken one.
    """
    if _take(file, 4) != MAGIC:
        raise ValueError("the file does not begin as GGUF does")
    version, _, count = struct.unpack("<IQQ", _take(file, 20))
    if version not in (2, 3) or count > MOST_KEYS:
        raise ValueError(f"a GGUF file of version {version} with {count} keys cannot be read")
    return {_text(file): _value(file) for _ in range(count)}


def _value(file: BinaryIO) -> Fact:
    (kind,) = struct.unpack("<I", _take(file, 4))
    if kind == _TEXT:
        return _text(file)
    if kind == _ARRAY:
        return _skip_array(file)
    if kind not in _SCALARS:
        raise ValueError(f"a value of the unknown kind {kind}")
    form = f"<{_SCALARS[kind]}"
    found: Fact = struct.unpack(form, _take(file, struct.calcsize(form)))[0]
    return found


def _skip_array(file: BinaryIO) -> int:
    """Leave an array out; returns how many elements it has."""
    kind, count = struct.unpack("<IQ", _take(file, 12))
    if kind in _SCALARS:
        _skip(file, count * struct.calcsize(f"<{_SCALARS[kind]}"))
    elif kind == _TEXT:
        for _ in range(count):
            (size,) = struct.unpack("<Q", _take(file, 8))
            _skip(file, size)
    else:
        raise ValueError(f"an array of the unknown kind {kind}")
    return int(count)


def _text(file: BinaryIO) -> str:
    (size,) = struct.unpack("<Q", _take(file, 8))
    if size > MOST_TEXT:
        _skip(file, size)
        return ""
    return _take(file, size).decode(errors="replace")


def _skip(file: BinaryIO, size: int) -> None:
    if size > MOST_SKIPPED:
        raise ValueError(f"a value of {size} bytes in the header")
    while size > 0:
        size -= len(_take(file, min(size, MOST_TEXT)))


def _take(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise ValueError("the file ends within its header")
    return data
