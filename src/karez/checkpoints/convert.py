"""Converts a checkpoint to another format, bit for bit, and lists what was renamed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from karez.checkpoints import mindspore, names, pytorch, safetensors
from karez.checkpoints.tensors import Tensor
from karez.core.errors import BadRequest, StorageFull

FORMATS = ("torch", "safetensors", "mindspore")
_BY_SUFFIX = {
    ".pt": "torch",
    ".pth": "torch",
    ".bin": "torch",
    ".safetensors": "safetensors",
    ".ckpt": "mindspore",
}
SHARD_BYTES = 5 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A request to convert a checkpoint."""

    source: Path
    target: Path
    to: str = ""
    """Format of the target; empty: by the target's name."""
    rules: Path | None = None
    kinds: Mapping[str, str] | None = None
    """Module -> kind, to rename for MindSpore; None: keep all names."""
    shard_bytes: int = SHARD_BYTES


def convert(order: Order) -> dict[str, Any]:
    """Read a checkpoint, rename its tensors and write the target.

    Raises:
        BadRequest: A format or a rule does not fit; nothing is written.
        BrokenArtifact: The source is damaged.
        StorageFull: The disk cannot hold the target; no partial file remains.
    """
    tensors, others, metadata = read(order.source)
    if order.rules is not None:
        mapped = names.apply_rules(tensors, names.read_rules(order.rules))
    elif order.kinds is not None:
        mapped = names.to_mindspore(tensors, order.kinds)
    else:
        mapped = names.Mapped(tensors=tensors, renamed={}, dropped=(), unmatched=())
    kind = order.to or _kind_of(order.target)
    if kind not in FORMATS:
        raise BadRequest(problem=f"{kind!r} is no format", fix=f"One of {', '.join(FORMATS)}.")
    try:
        files = _write(order.target, kind, mapped.tensors, metadata, order.shard_bytes)
    except OSError as error:
        wanted = sum(one.size for one in mapped.tensors)
        raise StorageFull(path=str(order.target), wanted_bytes=wanted) from error
    return {
        "tensors": len(mapped.tensors),
        "bytes": sum(one.size for one in mapped.tensors),
        "files": [str(file) for file in files],
        "renamed": dict(mapped.renamed),
        "dropped": list(mapped.dropped),
        "unmatched": list(mapped.unmatched),
        "left_out": others,
    }


def read(source: Path) -> tuple[list[Tensor], list[str], dict[str, str]]:
    """The tensors of a file or folder, what else is in it, and its metadata.

    Raises:
        BadRequest: The source holds no checkpoint.
        BrokenArtifact: The source is damaged.
    """
    if source.is_dir():
        if list(source.glob("*.safetensors")):
            tensors, metadata = safetensors.read_folder(source)
            return tensors, [], metadata
        parts = sorted([*source.glob("*.bin"), *source.glob("*.pt"), *source.glob("*.ckpt")])
        if not parts:
            raise BadRequest(problem=f"{source} holds no checkpoint", fix="Name the file itself.")
        tensors, others = [], []
        for part in parts:
            more, rest, _ = read(part)
            tensors += more
            others += rest
        return tensors, others, {}
    if not source.is_file():
        raise BadRequest(problem=f"there is no {source}", fix="Name a file or a folder.")
    kind = _kind_of(source)
    if kind == "safetensors":
        tensors, metadata = safetensors.read(source)
        return tensors, [], metadata
    tensors, others = (pytorch if kind == "torch" else mindspore).read(source)
    return tensors, others, {}


def _write(
    target: Path, kind: str, tensors: Sequence[Tensor], metadata: Mapping[str, str], shard: int
) -> list[Path]:
    target.parent.mkdir(parents=True, exist_ok=True)
    if kind == "safetensors":
        if target.suffix != ".safetensors":
            return safetensors.write_folder(target, tensors, metadata, shard)
        safetensors.write(target, tensors, metadata)
    elif kind == "torch":
        pytorch.write(target, tensors)
    else:
        mindspore.write(target, tensors)
    return [target]


def _kind_of(path: Path) -> str:
    if path.suffix in _BY_SUFFIX:
        return _BY_SUFFIX[path.suffix]
    if path.suffix:
        raise BadRequest(
            problem=f"{path.name} ends in {path.suffix}, which says nothing of its format",
            fix=f"Known are {', '.join(_BY_SUFFIX)}; or say --to.",
        )
    return "safetensors"
