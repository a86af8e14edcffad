"""Frames on a stream socket between a node's processes: a JSON head and an optional blob."""

import json
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

from karez.core.messages.wire import Message, encode

_PREFIX: Final = struct.Struct("<II")
LIMIT_BYTES: Final = 2**31
"""Largest blob in one frame."""
DRAIN_S: Final = 1.0
"""Seconds of silence after which a refused peer is waited for no longer."""
HEAD_BYTES: Final = 2**24
"""Largest head of a frame."""


class Stream(Protocol):
    """A connected stream socket."""

    def sendall(self, data: Any, /) -> None:
        """Send all bytes of `data`."""
        ...

    def recv_into(self, buffer: Any, /) -> int:
        """Fill a part of a buffer and return its size; 0 at the end of the stream."""
        ...


def send(stream: Stream, head: Mapping[str, Any], blob: bytes | memoryview = b"") -> None:
    """Send one frame.

    Raises:
        OSError: The peer has gone.
        ValueError: The frame is too long; nothing of it was sent.
    """
    stream.sendall(_head(head, len(blob)))
    if len(blob):
        stream.sendall(blob)


def send_message(stream: Stream, message: Message, blob: bytes | memoryview = b"") -> None:
    """Send one message as a frame. Raises OSError if the peer has gone."""
    send(stream, encode(message), blob)


def frame_of(message: Message) -> bytes:
    """One message as a frame without a blob."""
    return _head(encode(message), 0)


def _head(head: Mapping[str, Any], blob_len: int) -> bytes:
    text = json.dumps(head, separators=(",", ":")).encode()
    if len(text) > HEAD_BYTES or blob_len > LIMIT_BYTES:  # the peer could only hang up
        raise ValueError(f"a frame of {len(text)}+{blob_len} bytes is too long")
    return _PREFIX.pack(len(text), blob_len) + text


def close_after_refusal(stream: socket.socket) -> None:
    """Close a connection so that the peer still reads what it was told.

    A socket that is closed with unread bytes resets the connection, and the peer loses the rest.
    """
    with suppress(OSError):
        stream.shutdown(socket.SHUT_WR)
        stream.settimeout(DRAIN_S)
        while stream.recv(1 << 16):
            continue
    stream.close()


def receive(
    stream: Stream, *, head_limit: int = HEAD_BYTES, blob_limit: int = LIMIT_BYTES
) -> tuple[dict[str, Any], bytes]:
    """Read one frame; nothing is allocated for a longer one.

    Raises:
        EOFError: The peer closed the connection.
        ValueError: The bytes are not a valid frame.
    """
    text_len, blob_len = _PREFIX.unpack(_exactly(stream, _PREFIX.size))
    if text_len > head_limit or blob_len > blob_limit:
        raise ValueError(f"a frame of {text_len}+{blob_len} bytes is too long")
    try:
        head = json.loads(_exactly(stream, text_len))
    except RecursionError as error:
        raise ValueError("a frame's head is nested too deeply") from error
    if not isinstance(head, dict):
        raise ValueError("a frame's head should be an object")
    return head, bytes(_exactly(stream, blob_len)) if blob_len else b""


def _exactly(stream: Stream, size: int) -> bytearray:
    buffer = bytearray(size)
    view, at = memoryview(buffer), 0
    while at < size:
        size_read = stream.recv_into(view[at:])
        if not size_read:
            raise EOFError
        at += size_read
    return buffer
