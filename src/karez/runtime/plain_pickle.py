"""Pickles of plain values, which can be read without running anything that is in them.

State comes back from shared memory, from other nodes and from the blob store: whoever could write
there must not be able to run code in a rank. Only values whose types are listed here are written
and read; tensors lie beside the pickle.
"""

import io
import pickle
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from typing_extensions import override

from karez.core.errors import BadRequest, BrokenArtifact

_ATOMS: Final = (int, float, complex, str, bool, bytes, bytearray, type(None), range, slice)
_SIMPLE: Final = frozenset(_ATOMS)
_ROWS: Final = (list, tuple, set, frozenset)
_TORCH: Final = (torch.dtype, torch.device, torch.Size)
_NAMES: Final = frozenset(
    {
        *(("builtins", name) for name in ("complex", "set", "frozenset", "bytearray", "range")),
        *(("builtins", name) for name in ("slice", "bytes")),
        ("_codecs", "encode"),  # bytes, as old protocols write them
        ("collections", "OrderedDict"),
        *(("torch", name) for name in ("Size", "device")),
        *(
            (f"numpy{core}.{module}", name)
            for core in (".core", "._core")
            for module, name in (
                ("multiarray", "_reconstruct"),
                ("multiarray", "scalar"),
                ("numeric", "_frombuffer"),
            )
        ),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    }
)
"""Everything that a plain value's pickle names, besides torch's types and the caller's class."""


def dumps(value: Any, own: type) -> bytes:
    """Pickle a plain value, in which instances of `own` may stand.

    Raises:
        BadRequest: Something in it has another type.
    """
    _check(value, own)
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def loads(data: bytes, own: Mapping[tuple[str, str], type]) -> Any:
    """Read what `dumps` wrote; `own` are the names of the caller's class in pickles.

    Raises:
        BrokenArtifact: It names something else; nothing of it has run.
    """
    return _Reader(io.BytesIO(data), own).load()


class _Reader(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, own: Mapping[tuple[str, str], type]) -> None:
        super().__init__(file)
        self._own = own

    @override
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        name = (module_name, global_name)
        if name in self._own:
            return self._own[name]
        if name in _NAMES:
            return super().find_class(module_name, global_name)
        if module_name == "torch" and isinstance(
            found := getattr(torch, global_name, None), torch.dtype
        ):
            return found
        raise BrokenArtifact(
            name="this state of a rank", problem=f"it names {module_name}.{global_name}"
        )


def _check(value: Any, own: type) -> None:
    kind = type(value)
    if kind in _ATOMS or kind in _TORCH or kind is own:
        return
    if kind in _ROWS:
        if _SIMPLE.issuperset(map(type, value)):  # such as losses: a state is packed at each step
            return
        for item in value:
            _check(item, own)
    elif kind is dict:
        for key, item in value.items():
            _check(key, own)
            _check(item, own)
    elif not (isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in "OV"):
        raise BadRequest(
            problem=f"a state_dict() holds a {kind.__module__}.{kind.__qualname__}",
            fix="Return numbers, texts, arrays, tensors, and lists and dicts of them.",
        )
