"""The header of a safetensors file: which bytes are whose. Pure.

Source: the format's description in github.com/huggingface/safetensors (README, "Format").
"""

import json
import struct
from typing import Any

_HEAD = struct.Struct("<Q")
HEAD_BYTES = _HEAD.size
MAX_HEADER_BYTES = 100 << 20


def header_length(head: bytes, file_bytes: int) -> int:
    """Return the length of the header that follows a file's first HEAD_BYTES.

    Raises:
        ValueError: The file cannot hold it.
    """
    if len(head) < HEAD_BYTES:
        raise ValueError("it is too short for safetensors")
    (length,) = _HEAD.unpack(head)
    if length > min(MAX_HEADER_BYTES, file_bytes - HEAD_BYTES):
        raise ValueError("its header is longer than the file: it is cut off, or no safetensors")
    return int(length)


def weights_bytes(header: bytes, body_bytes: int) -> int:
    """Return how many bytes of weights a header speaks of.

    Raises:
        ValueError: It is no header, or `body_bytes` that follow it are fewer.
    """
    try:
        table = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its header is no JSON: {error}") from error
    if not isinstance(table, dict):
        raise ValueError("its header is no JSON object")
    ends = [_end(name, row) for name, row in table.items() if name != "__metadata__"]
    last = max(ends, default=0)
    if last > body_bytes:
        raise ValueError(f"it is cut off: {last - body_bytes} bytes of its weights are missing")
    return last


def _end(name: str, row: Any) -> int:
    offsets = row.get("data_offsets") if isinstance(row, dict) else None
    match offsets:
        case [int(start), int(end)] if 0 <= start <= end:
            return end
    raise ValueError(f"its header has no place for {name!r}")
