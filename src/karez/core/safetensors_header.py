"""The header of a safetensors file: which bytes are whose. Pure.

Source: the format's description in github.com/huggingface/safetensors (README, "Format").
"""

import json
import struct
from typing import Any

_HEAD = struct.Struct("<Q")
HEAD_BYTES = _HEAD.size
METADATA = "__metadata__"
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
    """Return how many bytes of weights a header speaks of: they are all that follows it.

    Raises:
        ValueError: It is no header, or other bytes follow it than it says.
    """
    try:
        table = json.loads(header, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("its header is no JSON: it is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"its header is no JSON: {error}") from error
    if not isinstance(table, dict):
        raise ValueError("its header is no JSON object")
    at = 0
    for start, end, name in sorted(_place(*row) for row in table.items() if row[0] != METADATA):
        if start != at:
            raise ValueError(f"the bytes of {name!r} do not begin where those before it end")
        at = end
    if at > body_bytes:
        raise ValueError(f"it is cut off: {at - body_bytes} bytes of its weights are missing")
    if at < body_bytes:
        raise ValueError(f"{body_bytes - at} bytes of it belong to no weight")
    return at


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name is in its header twice")
    return table


def _place(name: str, row: Any) -> tuple[int, int, str]:
    match row.get("data_offsets") if isinstance(row, dict) else None:
        case [int(start), int(end)] if 0 <= start <= end and not isinstance(start, bool):
            return start, end, name
    raise ValueError(f"its header has no place for {name!r}")
