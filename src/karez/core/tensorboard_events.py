"""Curves as TensorBoard reads them: event files of TensorFlow's record format. Pure.

Source: tensorflow/core/lib/io/record_writer.h and tensorflow/core/util/event.proto.
"""

import struct
from collections.abc import Iterable, Iterator

_POLYNOMIAL = 0x82F63B78
"""Of CRC-32C, its bits reversed."""
_MASK = 0xA282EAD8


def event_file(points: Iterable[tuple[int, float, float]], tag: str) -> bytes:
    """The bytes of an event file with one curve.

    Args:
        points: (step, value, time in UTC epoch seconds).
        tag: Name of the curve.
    """
    return b"".join(_records(points, tag))


def _records(points: Iterable[tuple[int, float, float]], tag: str) -> Iterator[bytes]:
    yield _record(_double(1, 0.0) + _bytes(3, b"brain.Event:2"))
    for step, value, at in points:
        one = _bytes(1, tag.encode()) + _float(2, value)
        yield _record(_double(1, at) + _varint(2, step) + _bytes(5, _bytes(1, one)))


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _checked(length) + data + _checked(data)


def _checked(data: bytes) -> bytes:
    crc = crc32c(data)
    turned = ((crc >> 15) | (crc << 17)) & 0xFFFFFFFF
    return struct.pack("<I", (turned + _MASK) & 0xFFFFFFFF)


def _table() -> tuple[int, ...]:
    found = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        found.append(value)
    return tuple(found)


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """The checksum of Castagnoli's polynomial (RFC 3720, B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _key(field: int, kind: int) -> bytes:
    return _plain(field << 3 | kind)


def _plain(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _varint(field: int, number: int) -> bytes:
    return _key(field, 0) + _plain(number)


def _double(field: int, value: float) -> bytes:
    return _key(field, 1) + struct.pack("<d", value)


def _bytes(field: int, data: bytes) -> bytes:
    return _key(field, 2) + _plain(len(data)) + data


def _float(field: int, value: float) -> bytes:
    return _key(field, 5) + struct.pack("<f", value)
