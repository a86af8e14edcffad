"""Reads and writes safetensors: a header in JSON, then the bytes, in one file or several.

Source: the format's description in github.com/huggingface/safetensors (README, "Format").
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from karez.checkpoints.tensors import Tensor
from karez.core.errors import BrokenArtifact
from karez.core.safetensors_header import HEAD_BYTES, header_length

_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "C64": "complex64",
}
_NAMES = {name: code for code, name in _TYPES.items()}
_HEAD = struct.Struct("<Q")
INDEX = "model.safetensors.index.json"


def read(path: Path) -> tuple[list[Tensor], dict[str, str]]:
    """Read the tensors of a file, and its metadata. Raises BrokenArtifact."""
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            length = header_length(file.read(HEAD_BYTES), size)
        except ValueError as error:
            raise BrokenArtifact(name=str(path), problem=str(error)) from error
        table = _json_object(path, file.read(length))
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise BrokenArtifact(name=str(path), problem="its metadata are no texts")
    start = HEAD_BYTES + length
    return [_tensor(path, name, row, start, size) for name, row in table.items()], metadata


def _json_object(path: Path, text: bytes | str) -> dict[str, Any]:
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrokenArtifact(name=str(path), problem=f"its header is no JSON: {error}") from error
    if not isinstance(table, dict):
        raise BrokenArtifact(name=str(path), problem="its header is no object")
    return table


def write(path: Path, tensors: Sequence[Tensor], metadata: Mapping[str, str]) -> None:
    """Write one file, in the order given; streamed. Raises OSError."""
    table: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for one in tensors:
        table[one.name] = {
            "dtype": _NAMES[one.dtype],
            "shape": list(one.shape),
            "data_offsets": [at, at + one.size],
        }
        at += one.size
    head = json.dumps(table, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    fresh = path.with_name(f".{path.name}.new")
    try:
        with fresh.open("wb") as file:
            file.write(_HEAD.pack(len(head)) + head)
            for one in tensors:
                body = one.read()
                if len(body) != one.size:
                    raise BrokenArtifact(
                        name=one.name, problem=f"{len(body)} bytes where its shape needs {one.size}"
                    )
                file.write(body)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def read_folder(folder: Path) -> tuple[list[Tensor], dict[str, str]]:
    """Read all files of a folder, by its index where there is one. Raises BrokenArtifact."""
    index = folder / INDEX
    if not index.exists():
        files = sorted(folder.glob("*.safetensors"))
    else:
        table = _json_object(index, index.read_bytes()).get("weight_map")
        names = sorted(set(table.values())) if isinstance(table, dict) else []
        if not names or not all(
            isinstance(one, str) and one and Path(one).name == one for one in names
        ):
            raise BrokenArtifact(name=str(index), problem="it names no files of its folder")
        files = [folder / name for name in names]
    tensors: list[Tensor] = []
    metadata: dict[str, str] = {}
    for file in files:
        if not file.exists():
            raise BrokenArtifact(name=str(folder), problem=f"{file.name} is missing")
        found, more = read(file)
        tensors += found
        metadata |= more
    return tensors, metadata


def _is_file_name(name: object) -> bool:
    return isinstance(name, str) and bool(name) and Path(name).name == name


def write_folder(
    folder: Path, tensors: Sequence[Tensor], metadata: Mapping[str, str], shard_bytes: int
) -> list[Path]:
    """Write files of about `shard_bytes` each, and their index. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = list(_shards(tensors, shard_bytes))
    if len(shards) == 1:
        path = folder / "model.safetensors"
        write(path, shards[0], metadata)
        return [path]
    paths: list[Path] = []
    table: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        path = folder / f"model-{number:05}-of-{len(shards):05}.safetensors"
        write(path, shard, metadata)
        paths.append(path)
        table |= {one.name: path.name for one in shard}
    total = sum(one.size for one in tensors)
    body = {"metadata": {"total_size": total}, "weight_map": table}
    (folder / INDEX).write_text(json.dumps(body, indent=1) + "\n")
    return paths


def _shards(tensors: Sequence[Tensor], shard_bytes: int) -> Iterator[list[Tensor]]:
    shard: list[Tensor] = []
    size = 0
    for one in tensors:
        if shard and size + one.size > shard_bytes:
            yield shard
            shard, size = [], 0
        shard.append(one)
        size += one.size
    yield shard


def _tensor(path: Path, name: str, row: Mapping[str, Any], start: int, size: int) -> Tensor:
    first, last, shape, dtype = _place(path, name, row)
    if dtype not in _TYPES:
        raise BrokenArtifact(name=str(path), problem=f"{name} is of the unknown type {dtype}")

    def body() -> bytes:
        with path.open("rb") as file:
            file.seek(start + first)
            return file.read(last - first)

    found = Tensor(name=name, dtype=_TYPES[dtype], shape=shape, read=body)
    if last - first != found.size or start + last > size:
        raise BrokenArtifact(name=str(path), problem=f"{name} does not fit its place in the file")
    return found


def _place(path: Path, name: str, row: Any) -> tuple[int, int, tuple[int, ...], str]:
    """Where a tensor lies, its shape and its type. Raises BrokenArtifact."""
    fields = row if isinstance(row, dict) else {}
    offsets, shape, dtype = (fields.get(key) for key in ("data_offsets", "shape", "dtype"))
    if isinstance(dtype, str) and _are_counts(offsets) and len(offsets) == 2 and _are_counts(shape):
        return offsets[0], offsets[1], tuple(shape), dtype
    raise BrokenArtifact(name=str(path), problem=f"{name} has no type, shape and place")


def _are_counts(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
