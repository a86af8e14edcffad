"""PyTorch's zip format, read and written without torch.

A pickle names the tensors and where their storages lie in the archive. It is read by an unpickler
that knows only what tensors are made of: anything else in it becomes a note, and is never run.
"""

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
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
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            inner = next(name for name in names if name.endswith("/data.pkl"))
            root = inner.removesuffix("data.pkl")
            if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
                raise BrokenArtifact(
                    name=str(path), problem="it was written on a big-endian machine"
                )
            tree = _Reader(io.BytesIO(archive.read(inner))).load()
    except (zipfile.BadZipFile, StopIteration) as error:
        raise BrokenArtifact(
            name=str(path),
            problem="it is no zip file of torch.save; save it with torch 1.6 or newer",
        ) from error
    except (pickle.UnpicklingError, EOFError, AttributeError, TypeError) as error:
        raise BrokenArtifact(
            name=str(path), problem=f"its pickle cannot be read: {error}"
        ) from error
    tensors, others = [], []
    for name, value in _leaves(tree, ""):
        if isinstance(value, _View):
            tensors.append(_tensor(path, root, name, value))
        else:
            others.append(name)
    return tensors, others


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
        if not isinstance(kind, str):
            raise pickle.UnpicklingError(f"storage {key} is of an unknown type")
        return _Storage(key, _STORAGES[kind])


def _rebuild(storage: _Storage, offset: int, shape: Any, stride: Any, *_: Any) -> _View:
    return _View(storage, int(offset), tuple(shape), tuple(stride))


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{name}.{number}")
    else:
        yield name, value


def _tensor(path: Path, root: str, name: str, view: _View) -> Tensor:
    size = SIZES[view.storage.dtype]

    def body() -> bytes:
        with zipfile.ZipFile(path) as archive:
            whole = archive.read(f"{root}data/{view.storage.key}")
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
