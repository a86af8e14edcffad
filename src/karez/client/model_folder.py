"""Looks at a model's folder before anything is done with it: is all there, and is it safe?"""

import difflib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from karez.core.errors import BadRequest, BrokenArtifact
from karez.core.safetensors_header import HEAD_BYTES, header_length, weights_bytes

INDEX = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
WHOLE = "model.safetensors"
ADAPTER = "adapter_config.json"
_OTHER_FORMATS = (
    *("*.gguf", "*.onnx", "*.xml", "*.tflite", "*.mlmodel"),
    *("*.h5", "*.msgpack", "*.npz"),
)
"""Weights that no class of torch reads as they are."""
_SHOWN = 3
_SIDE_FILES = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state(_\d+)?)\.\w+")
"""Files of a Trainer's checkpoint, of which no engine reads one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A folder with a model, as transformers writes it."""

    folder: Path
    model_type: str
    weight_files: tuple[str, ...]
    weights_bytes: int
    own_code: tuple[str, ...]
    """Files with code that the folder wants to be run; karez runs none."""


def read_model_folder(folder: Path) -> ModelFolder:
    """Look at the configuration and the weights of a model's folder.

    Raises:
        BadRequest: There is no such folder, it is an adapter, or its weights are only pickles.
        BrokenArtifact: A file is missing, cut off, or not what its name says.
    """
    if not folder.is_dir():
        raise BadRequest(problem=f"there is no folder {folder}")
    if (folder / ADAPTER).is_file():
        raise BadRequest(
            problem=f"{folder} is an adapter", fix="Check the folder of the model that it adapts."
        )
    config = _config(folder)
    files = _weight_files(folder)
    auto = config.get("auto_map")
    named = auto.values() if isinstance(auto, dict) else ()
    code = {str(name).partition("--")[2] or str(name) for name in named}
    return ModelFolder(
        folder=folder,
        model_type=config["model_type"],
        weight_files=files,
        weights_bytes=sum(_checked_weights(folder / name) for name in files),
        own_code=tuple(sorted({f"{name.partition('.')[0]}.py" for name in code})),
    )


def check_upload(root: Path) -> None:
    """Look at a folder that is to be uploaded as a model, if it is one of transformers.

    Raises:
        BadRequest: Its weights are only pickles.
        BrokenArtifact: A file is missing, cut off, or not what its name says.
    """
    config = root / "config.json"
    if not config.is_file() or (root / ADAPTER).is_file():
        return
    if not _own_weights(root) and any(next(root.rglob(one), None) for one in _OTHER_FORMATS):
        return
    table = _parsed(config)
    if isinstance(table, dict) and isinstance(table.get("model_type"), str):
        read_model_folder(root)


def check_known(found: ModelFolder, known: Collection[str]) -> None:
    """Check that transformers has a class for a model. Raises BadRequest."""
    if found.model_type in known:
        return
    near = difflib.get_close_matches(found.model_type, known, n=_SHOWN)
    like = f" Types with names like it: {', '.join(near)}." if near else ""
    if found.own_code:
        raise BadRequest(
            problem=f"the model type {found.model_type!r} is not in the installed transformers, "
            f"and the folder brings code of its own ({', '.join(found.own_code)})",
            fix="karez runs no code out of a model's folder. Take a newer transformers that has "
            f"the type, or a model of a type that it has.{like}",
        )
    raise BadRequest(
        problem=f"the model type {found.model_type!r} is not in the installed transformers",
        fix=f"Take a newer transformers, or see `karez models matrix`.{like}",
    )


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise BrokenArtifact(name=str(folder), problem="it has no config.json")
    config = _json_object(path)
    if not isinstance(config.get("model_type"), str) or not config["model_type"]:
        raise BrokenArtifact(name=str(path), problem="it names no model_type")
    return config


def _json_object(path: Path) -> dict[str, Any]:
    value = _parsed(path)
    if not isinstance(value, dict):
        raise BrokenArtifact(name=str(path), problem="it is no JSON object")
    return value


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problem = f"it cannot be read: {error.strerror}"
        raise BrokenArtifact(name=str(path), problem=problem) from error
    except (ValueError, RecursionError) as error:
        raise BrokenArtifact(name=str(path), problem=f"it is no JSON: {error}") from error


def _own_weights(folder: Path) -> bool:
    has_index = (folder / INDEX).is_file()
    return has_index or any(folder.glob("*.safetensors")) or bool(_pickles(folder))


def _pickles(folder: Path) -> list[str]:
    """Names of files that torch pickled; the weights beside an OpenVINO .xml end in .bin too."""
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.suffix in _PICKLES
        and not _SIDE_FILES.fullmatch(path.name)
        and not path.with_suffix(".xml").exists()
    )


def _weight_files(folder: Path) -> tuple[str, ...]:
    if (folder / WHOLE).is_file() or (folder / WHOLE).is_symlink():
        return (WHOLE,)  # as transformers does, whatever an index says
    index = folder / INDEX
    if index.is_file():
        return _listed(index)
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    if files:
        return tuple(files)
    pickles = _pickles(folder)
    if not pickles:
        raise BrokenArtifact(name=str(folder), problem="it has no weights (*.safetensors)")
    raise BadRequest(
        problem=f"the weights of {folder} are pickles ({', '.join(pickles[:_SHOWN])}), which run "
        "code when they are read",
        fix=f"Convert them first: `karez migrate checkpoint {folder / pickles[0]} "
        f"{folder / WHOLE}` reads tensors and runs nothing."
        if len(pickles) == 1
        else "Save the model as safetensors where it comes from: `save_pretrained` does.",
    )


def _listed(index: Path) -> tuple[str, ...]:
    table = _json_object(index).get("weight_map")
    is_table = isinstance(table, Mapping) and all(isinstance(v, str) for v in table.values())
    if not table or not is_table:
        raise BrokenArtifact(name=str(index), problem="it has no weight_map of names to files")
    names = sorted(set(table.values()))
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise BrokenArtifact(name=str(index), problem=f"it names {outside[0]!r}, in another folder")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        more = ", ..." if missing[_SHOWN:] else ""
        raise BrokenArtifact(
            name=str(index.parent),
            problem=f"{len(missing)} of {len(names)} shards are missing: "
            f"{', '.join(missing[:_SHOWN])}{more}",
        )
    return tuple(names)


def _checked_weights(path: Path) -> int:
    """Check that a file is as long as its header says; returns the bytes of its weights."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = header_length(file.read(HEAD_BYTES), size)
            return weights_bytes(file.read(length), size - HEAD_BYTES - length)
    except ValueError as error:
        raise BrokenArtifact(name=str(path), problem=str(error)) from error
    except OSError as error:
        problem = f"it cannot be read: {error.strerror}"
        raise BrokenArtifact(name=str(path), problem=problem) from error
