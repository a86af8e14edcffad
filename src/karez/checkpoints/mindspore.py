"""Reads and writes MindSpore's .ckpt, a protocol buffer, field by field.

Source: mindspore/ccsrc/utils/checkpoint.proto (Apache-2.0): Checkpoint.value = 1 {tag = 1,
tensor = 2 {dims = 1, tensor_type = 2, tensor_content = 3}}. A tensor may be spread over several
values of one tag, in order.
"""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from karez.checkpoints.tensors import SIZES, Tensor
from karez.core.errors import BrokenArtifact

_TYPES = {
    "Float64": "float64",
    "Float32": "float32",
    "Float16": "float16",
    "BFloat16": "bfloat16",
    "Int64": "int64",
    "Int32": "int32",
    "Int16": "int16",
    "Int8": "int8",
    "UInt8": "uint8",
    "Bool": "bool",
    "UInt16": "uint16",
    "UInt32": "uint32",
    "UInt64": "uint64",
}
_NAMES = {name: code for code, name in _TYPES.items()}
_VARINT, _BYTES = 0, 2
_VARINT_BITS = 70
"""Ten bytes of seven bits: the longest number of a protocol buffer."""
CHUNK = 512 << 20
"""MindSpore splits tensors into pieces of this size; a message may not exceed 2 GiB."""


def read(path: Path) -> tuple[list[Tensor], list[str]]:
    """Read the tensors of a file, and the tags of all other values. Raises BrokenArtifact."""
    body = path.read_bytes()
    parts: dict[str, tuple[str, tuple[int, ...], list[bytes]]] = {}
    others: list[str] = []
    try:
        for number, value in _fields(body):
            if number == 1:
                tag, dtype, shape, content = _value(_inner(value))
                if dtype not in _TYPES:
                    others.append(tag)
                    continue
                parts.setdefault(tag, (_TYPES[dtype], shape, []))[2].append(content)
    except (IndexError, struct.error, UnicodeDecodeError, ValueError) as error:
        raise BrokenArtifact(name=str(path), problem=f"it is no checkpoint: {error}") from error
    found = []
    for tag, (dtype, shape, pieces) in parts.items():
        one = Tensor(name=tag, dtype=dtype, shape=_shape(shape), read=lambda p=pieces: b"".join(p))  # type: ignore[misc]  # bound now
        if sum(map(len, pieces)) != one.size:
            raise BrokenArtifact(name=str(path), problem=f"{tag} has not the bytes of its shape")
        found.append(one)
    if not found and not others:
        raise BrokenArtifact(name=str(path), problem="there is no tensor in it")
    return found, others


def write(path: Path, tensors: Sequence[Tensor]) -> None:
    """Write a file that mindspore.load_checkpoint reads.

    Raises:
        BrokenArtifact: A tensor has a type that MindSpore lacks.
        OSError: The file cannot be written.
    """
    lacking = [one.name for one in tensors if one.dtype not in _NAMES]
    if lacking:
        raise BrokenArtifact(name=lacking[0], problem="MindSpore has no such type of numbers")
    fresh = path.with_name(f".{path.name}.new")
    try:
        with fresh.open("wb") as file:
            for one in tensors:
                body = one.read()
                for start in range(0, max(1, len(body)), CHUNK):
                    file.write(_message(one, body[start : start + CHUNK]))
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _message(one: Tensor, content: bytes) -> bytes:
    # a scalar is written as one number, as MindSpore does
    dims = b"".join(_tag(1, _VARINT) + _varint(size) for size in one.shape or (0,))
    tensor = dims + _block(2, _NAMES[one.dtype].encode()) + _block(3, content)
    return _block(1, _block(1, one.name.encode()) + _block(2, tensor))


def _shape(dims: tuple[int, ...]) -> tuple[int, ...]:
    return () if dims == (0,) else dims


def _value(body: bytes) -> tuple[str, str, tuple[int, ...], bytes]:
    tag, dtype, content = "", "", b""
    dims: list[int] = []
    for number, value in _fields(body):
        if number == 1:
            tag = _inner(value).decode()
        elif number == 2:
            for inner, part in _fields(_inner(value)):
                if inner == 1:
                    dims += [part] if isinstance(part, int) else list(_packed(part))
                elif inner == 2:
                    dtype = _inner(part).decode()
                elif inner == 3:
                    content = _inner(part)
    return tag, dtype, tuple(dims), content


def _fields(body: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(body):
        key, at = _read_varint(body, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _read_varint(body, at)
            yield number, value
        elif wire == _BYTES:
            length, at = _read_varint(body, at)
            if at + length > len(body):
                raise ValueError("it ends in the middle of a field")
            yield number, body[at : at + length]
            at += length
        else:
            raise ValueError(f"a field of wire type {wire}")


def _packed(body: bytes) -> Iterator[int]:
    at = 0
    while at < len(body):
        value, at = _read_varint(body, at)
        yield value


def _inner(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where bytes belong")
    return value


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if not byte & 0x80:
            return value, at
        shift += 7
        if shift >= _VARINT_BITS:
            raise ValueError("a number of more than 64 bits")


def _varint(value: int) -> bytes:
    out = bytearray()
    while True:
        byte = value & 0x7F
        value >>= 7
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)


def _tag(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _block(number: int, body: bytes) -> bytes:
    return _tag(number, _BYTES) + _varint(len(body)) + body


assert set(_TYPES.values()) <= set(SIZES)  # noqa: S101 - the two tables belong together
