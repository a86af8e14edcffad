"""Tensors without a framework: name, type, shape and bytes, for all formats."""

from collections.abc import Callable
from dataclasses import dataclass

SIZES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "complex64": 8,
}
"""Bytes of one element, by torch's name of the type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One tensor; its bytes are read on demand."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], bytes]
    """Reads the bytes: little-endian, in C order."""

    @property
    def count(self) -> int:
        """Number of elements."""
        total = 1
        for size in self.shape:
            total *= size
        return total

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.count * SIZES[self.dtype]


def of_bytes(name: str, dtype: str, shape: tuple[int, ...], body: bytes) -> Tensor:
    """A tensor whose bytes are in memory."""
    return Tensor(name=name, dtype=dtype, shape=shape, read=lambda: body)
