"""PyTorch's zip format, read and written without torch.

A pickle names the tensors and where their storages lie in the archive. It is read by an unpickler
that knows only what tensors are made of: anything else in it becomes a note, and is never run.
"""

import io
import itertools
import math
import pickle
import pickletools
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from karez.checkpoints.tensors import SIZES, Tensor
from karez.core.errors import BrokenArtifact

_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
}
MAX_LEAVES = 1_000_000
"""Objects in one file: the largest models have thousands of tensors, and their words."""
MAX_DEPTH = 100
MAX_DIMENSIONS = 32
_NO_ARCHIVE = (
    *(zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError),
    *(ValueError, KeyError, OverflowError, OSError, struct.error),
)
"""What Python's reader of archives raises for those that are none."""
_NOT_READ = (
    *(pickle.UnpicklingError, EOFError, AttributeError, TypeError, ValueError, LookupError),
    *(ArithmeticError, RecursionError, MemoryError, AssertionError, ImportError),
)
"""What pickles that are none raise."""
_CLASSES = {dtype: name for name, dtype in _STORAGES.items()}


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: str


@dataclass(frozen=True, slots=True)
class _View:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Unknown:
    """Stands for an object that is no tensor; it is never made."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Whatever it was."""

    def __setstate__(self, _state: Any) -> None:
        """Nothing is taken over."""


def read(path: Path) -> tuple[list[Tensor], list[str]]:
    """The tensors of a file, by their path in it, and what else is there.

    Raises:
        BrokenArtifact: It is no zip file of torch's.
    """
    with _opened(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        inner = next((name for name in members if name.endswith("/data.pkl")), "")
        if not inner:
            raise _no_archive(path)
        root = inner.removesuffix("data.pkl")
        order = f"{root}byteorder"
        if order in members and _read(path, archive, members[order]) != b"little":
            raise BrokenArtifact(name=str(path), problem="it was written on a big-endian machine")
        pickled = _read(path, archive, members[inner])
    leaves = _unpickled(path, pickled)
    sizes = {name: info.file_size for name, info in members.items()}
    tensors, others = [], []
    for name, value in leaves:
        if isinstance(value, _View):
            _check(path, name, value, sizes.get(f"{root}data/{value.storage.key}"))
            tensors.append(_tensor(path, root, name, value))
        else:
            others.append(name)
    return tensors, others


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive. Raises BrokenArtifact; OSError if the file cannot be opened."""
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                yield archive
        except _NO_ARCHIVE as error:
            raise _no_archive(path) from error


def _no_archive(path: Path) -> BrokenArtifact:
    problem = "it is no zip file of torch.save; save it with torch 1.6 or newer"
    return BrokenArtifact(name=str(path), problem=problem)


def _read(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The bytes of a member, which are as many as the archive has of it: torch packs nothing."""
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise BrokenArtifact(
            name=str(path), problem=f"{member.filename} is compressed, which torch.save never does"
        )
    if member.flag_bits & 1:
        raise BrokenArtifact(name=str(path), problem=f"{member.filename} is encrypted")
    return archive.read(member)


def _unpickled(path: Path, pickled: bytes) -> list[tuple[str, Any]]:
    """The leaves of a pickle, by their path in it."""
    try:
        _check_memo(pickled)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = _Reader(io.BytesIO(pickled)).load()
        leaves = list(itertools.islice(_leaves(tree), MAX_LEAVES + 1))
    except _NOT_READ as error:
        raise BrokenArtifact(
            name=str(path), problem=f"its pickle cannot be read: {error or type(error).__name__}"
        ) from error
    if len(leaves) > MAX_LEAVES:
        raise BrokenArtifact(name=str(path), problem=f"it names more than {MAX_LEAVES:,} objects")
    return leaves


def _check_memo(pickled: bytes) -> None:
    """Raise ValueError where a number is given to an object for which memory would be reserved.

    Pickles number their objects from 0 on; the reader makes its table as large as the number.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd escapes in texts
        for opcode, number, _ in pickletools.genops(pickled):
            is_put = opcode.name in ("PUT", "BINPUT", "LONG_BINPUT")
            if is_put and not 0 <= (number or 0) < len(pickled):
                raise ValueError(f"it numbers an object {number}")


def _check(path: Path, name: str, view: _View, stored: int | None) -> None:
    """Refuse a tensor that does not lie in its storage."""
    size = SIZES[view.storage.dtype]
    if stored is None:
        raise BrokenArtifact(name=str(path), problem=f"the numbers of {name} are missing")
    if len(view.shape) != len(view.stride) or len(view.shape) > MAX_DIMENSIONS:
        raise BrokenArtifact(name=str(path), problem=f"{name} has no shape that a tensor can have")
    numbers = (view.offset, *view.shape, *view.stride)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise BrokenArtifact(name=str(path), problem=f"{name} begins before its numbers")
    count = math.prod(view.shape)
    steps = zip(view.shape, view.stride, strict=True)
    last = view.offset + sum((length - 1) * step for length, step in steps)
    if count and (last >= stored // size or count > stored // size):
        raise BrokenArtifact(
            name=str(path), problem=f"{name} is larger than the numbers that are there for it"
        )


def write(path: Path, tensors: Sequence[Tensor]) -> None:
    """A state_dict that torch.load reads with weights_only. Raises OSError."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        with zipfile.ZipFile(fresh, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("archive/data.pkl", _pickle(tensors))
            archive.writestr("archive/byteorder", "little")
            for number, one in enumerate(tensors):
                archive.writestr(f"archive/data/{number}", one.read())
            archive.writestr("archive/version", "3\n")
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


class _Reader(pickle.Unpickler):
    """Knows tensors, storages and plain containers."""

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the pickle stands for."""
        if module == "collections" and name == "OrderedDict":
            return OrderedDict
        if module.startswith("torch") and name in _STORAGES:
            return name
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_tensor"):
            return _rebuild
        if module == "torch._utils" and name == "_rebuild_parameter":
            return lambda value, *_: value
        if module == "torch" and name in SIZES:
            return _Unknown
        return _Unknown

    def persistent_load(self, pid: Any) -> Any:
        """A storage by its key in the archive."""
        kind, key = pid[1], str(pid[2])
        if not isinstance(kind, str) or kind not in _STORAGES:
            raise pickle.UnpicklingError(f"storage {key} is of an unknown type")
        return _Storage(key, _STORAGES[kind])


def _rebuild(storage: _Storage, offset: int, shape: Any, stride: Any, *_: Any) -> _View:
    return _View(storage, int(offset), tuple(shape), tuple(stride))


def _leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """(path, object) of all that is no container, in order."""
    left: list[tuple[str, Any, int]] = [("", tree, 0)]
    while left:
        name, value, depth = left.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        if isinstance(value, Mapping):
            inner = [(str(key), item) for key, item in value.items()]
        elif isinstance(value, (list, tuple)):
            inner = [(str(number), item) for number, item in enumerate(value)]
        else:
            yield name, value
            continue
        prefix = f"{name}." if name else ""
        left += [(prefix + key, item, depth + 1) for key, item in reversed(inner)]


def _tensor(path: Path, root: str, name: str, view: _View) -> Tensor:
    size = SIZES[view.storage.dtype]

    def body() -> bytes:
        with _opened(path) as archive:
            member = archive.getinfo(f"{root}data/{view.storage.key}")
            whole = _read(path, archive, member)
        _check(path, name, view, len(whole))  # the archive's list may say more than there is
        return _gather(whole, view, size)

    return Tensor(name=name, dtype=view.storage.dtype, shape=view.shape, read=body)


def _gather(whole: bytes, view: _View, size: int) -> bytes:
    """A view's elements in C order, out of its storage."""
    import numpy as np  # noqa: PLC0415 - only where bytes are moved

    flat = np.frombuffer(whole, dtype=np.dtype((np.void, size)))
    steps = tuple(step * size for step in view.stride)
    strided = np.lib.stride_tricks.as_strided(
        flat[view.offset :], shape=view.shape, strides=steps, writeable=False
    )
    return np.ascontiguousarray(strided).tobytes()


def _pickle(tensors: Sequence[Tensor]) -> bytes:
    """The pickle of an OrderedDict of contiguous tensors, as torch writes it (protocol 2)."""
    out = io.BytesIO()
    writer = _Writer(out, protocol=2)
    table: OrderedDict[str, Any] = OrderedDict()
    for number, one in enumerate(tensors):
        table[one.name] = _Saved(one, number)
    writer.dump(table)
    pickletools.dis(out.getvalue(), io.StringIO())  # that it is well formed
    return out.getvalue()


class _Saved:
    """A tensor on its way into a pickle."""

    def __init__(self, tensor: Tensor, number: int) -> None:
        self.tensor, self.number = tensor, number

    def __reduce__(self) -> Any:
        stride, step = [], 1
        for size in reversed(self.tensor.shape):
            stride.append(step)
            step *= size
        hooks: OrderedDict[str, Any] = OrderedDict()
        rest = (0, self.tensor.shape, tuple(reversed(stride)), False, hooks)
        return _rebuild_marker, (_Key(self.tensor, self.number), *rest)


class _Key:
    """A storage, which is written as a persistent id."""

    def __init__(self, tensor: Tensor, number: int) -> None:
        self.tensor, self.number = tensor, number


class _Global:
    """A name in another module, which is written without importing it."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


def _rebuild_marker() -> None:
    """Stands for torch._utils._rebuild_tensor_v2."""


_Plain: Any = pickle._Pickler  # the C one writes no foreign names


class _Writer(_Plain):  # type: ignore[misc]  # it has no types
    """Writes names of torch without torch."""

    def persistent_id(self, obj: Any) -> Any:
        """A storage's id, as torch has it."""
        if not isinstance(obj, _Key):
            return None
        one = obj.tensor
        kind = _Global("torch", _CLASSES[one.dtype])
        return ("storage", kind, str(obj.number), "cpu", one.count)

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        """As pickle, but for the names of torch."""
        if obj is _rebuild_marker:
            self.write(b"ctorch._utils\n_rebuild_tensor_v2\n")
        elif isinstance(obj, _Global):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        else:
            super().save(obj, save_persistent_id)
