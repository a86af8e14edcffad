"""Writes a GGUF file anew with fewer bits, by the quantisation of the llama.cpp that serves it."""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import xllamacpp

from karez.core.errors import BrokenArtifact
from karez.studio.gguf_types import FILE_TYPES, tensor_type

MATRIX = 2
"""Dimensions that a tensor has at least, to be quantised."""
Told = Callable[[int, int], None]
"""Told how many tensors are done, and of how many."""


def quantize_file(source: Path, target: Path, mixture: str, told: Told) -> None:
    """Write a file anew.

    Args:
        source: Of types that gguf can widen.
        target: Written anew.
        mixture: A name of gguf_types.MIXTURES.
        told: Told of each tensor.

    Raises:
        BrokenArtifact: The source is no such file.
    """
    try:
        reader = gguf.GGUFReader(source)
    except (OSError, ValueError, IndexError) as error:
        raise BrokenArtifact(name=source.name, problem=f"it is no GGUF file: {error}") from error
    if reader.endianess != gguf.GGUFEndian.LITTLE:
        raise BrokenArtifact(name=source.name, problem="it is big-endian, which is not read here")
    if int(_value(reader, "split.count") or 1) > 1:
        problem = "it is one of several parts; llama-gguf-split --merge makes one file of them"
        raise BrokenArtifact(name=source.name, problem=problem)
    architecture = _value(reader, gguf.Keys.General.ARCHITECTURE)
    if not architecture:
        raise BrokenArtifact(name=source.name, problem="it names no architecture")
    writer = gguf.GGUFWriter(target, architecture, endianess=reader.endianess)
    _copy_keys(reader, writer, mixture)
    plans = _plans(reader, architecture, mixture)
    for tensor, kind in plans:
        _add_info(writer, tensor, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for number, (tensor, kind) in enumerate(plans):
        told(number, len(plans))
        writer.write_tensor_data(tensor.data if kind is None else _quantized(tensor, kind))
    writer.close()


def _plans(reader: gguf.GGUFReader, architecture: str, mixture: str) -> list[tuple[Any, Any]]:
    """Each tensor with the type that it gets; None: it is kept as it is."""
    layers = int(_value(reader, f"{architecture}.block_count") or 0)
    is_tied = all(tensor.name != "output.weight" for tensor in reader.tensors)
    plans = []
    for tensor in reader.tensors:
        wanted = ""
        if len(tensor.shape) >= MATRIX:
            width = int(tensor.shape[0])
            wanted = tensor_type(tensor.name, mixture, width=width, layers=layers, is_tied=is_tied)
        plans.append((tensor, gguf.GGMLQuantizationType[wanted] if wanted else None))
    return plans


def _add_info(writer: gguf.GGUFWriter, tensor: Any, kind: Any) -> None:
    if kind is None:
        data, own = tensor.data, tensor.tensor_type
        writer.add_tensor_info(tensor.name, data.shape, data.dtype, data.nbytes, own)
        return
    shape = gguf.quant_shape_to_byte_shape(_rows_shape(tensor), kind)
    size = int(np.prod(shape))
    writer.add_tensor_info(tensor.name, shape, np.dtype(np.uint8), size, kind)


def _rows_shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in reversed(tensor.shape))


def _quantized(tensor: Any, kind: gguf.GGMLQuantizationType) -> npt.NDArray[np.uint8]:
    shape = _rows_shape(tensor)
    try:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as error:
        kind_of = tensor.tensor_type.name
        problem = f"its tensor {tensor.name} has the type {kind_of}, which is not read here"
        raise BrokenArtifact(name="the model", problem=problem) from error
    if not np.isfinite(values).all():
        problem = f"its tensor {tensor.name} has values that are no finite numbers"
        raise BrokenArtifact(name="the model", problem=problem)
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, shape[-1])
    packed = np.empty(gguf.quant_shape_to_byte_shape(flat.shape, kind), dtype=np.uint8)
    written = _library().ggml_quantize_chunk(
        int(kind), flat.ctypes.data, packed.ctypes.data, 0, flat.shape[0], flat.shape[1], None
    )
    if written != packed.nbytes:
        problem = f"llama.cpp wrote {written} bytes of {packed.nbytes} of {tensor.name}"
        raise BrokenArtifact(name=kind.name, problem=problem)
    return packed.reshape(gguf.quant_shape_to_byte_shape(shape, kind))


@cache
def _library() -> ctypes.CDLL:
    """llama.cpp, as the engine has it; ggml.h declares this function for others to call."""
    library = ctypes.CDLL(str(xllamacpp.xllamacpp.__file__))
    function = library.ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    function.argtypes = [
        *(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
        *(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p),
    ]
    return library


def _value(reader: gguf.GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def _copy_keys(reader: gguf.GGUFReader, writer: gguf.GGUFWriter, mixture: str) -> None:
    changed = (gguf.Keys.General.FILE_TYPE, gguf.Keys.General.QUANTIZATION_VERSION)
    for field in reader.fields.values():
        own = field.name == gguf.Keys.General.ARCHITECTURE or field.name.startswith("GGUF.")
        if own or field.name in changed:
            continue
        kind = field.types[0]
        if kind == gguf.GGUFValueType.ARRAY and not field.data:
            continue  # an empty one says nothing
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    writer.add_file_type(gguf.LlamaFileType[FILE_TYPES[mixture]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
