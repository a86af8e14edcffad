"""Reads a dump of msprobe (MindStudio Probe) from a GPU, a CPU or an NPU, as a record.

The forms are those of mindstudio-probe 26.2: `dump.json` of level L0 (modules), L1 (functions) or
mix, with tensors, statistics or checksums; PyTorch's `.pt` and MindSpore's `.npy`.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

from karez.core.errors import BadRequest
from karez.equivalence.record import SAMPLE, Record

FORM = "msprobe"
_STEP = re.compile(r"step(\d+)$")
_RANK = re.compile(r"rank(\d+)$")
ALONE = -1
"""The rank of a folder procNNN: a process without a rank, which no two runs share."""
_NAME = re.compile(
    r"(?P<what>.+?)\.(?:(?P<way>forward|backward|parameters_grad)\.(?P<count>\d+)"
    r"|(?P<calls>\d+)\.(?P<api_way>forward|backward))$"
)
_KINDS = {"forward": "forward", "backward": "backward", "parameters_grad": "gradient"}
_BROKEN = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    EOFError,
    UnpicklingError,
)
_STATISTICS = ("Max", "Min", "Mean")


def is_dump(folder: Path) -> bool:
    """Whether a folder holds a dump of msprobe."""
    return next(_dumps(folder), None) is not None


def read(folder: Path, rank: int = 0) -> Record:
    """Read a dump as a record; `folder` holds all steps, one step or one rank.

    Raises:
        BadRequest: The folder holds no dump, lacks the rank, or is damaged.
    """
    steps: dict[int, dict[int, Path]] = {}
    for step, its_rank, path in _dumps(folder):
        if its_rank in steps.setdefault(step, {}):
            raise BadRequest(
                problem=f"{folder} holds more than one dump of step {step}: {path} and another",
                fix="Name one dump_path, or one process's folder.",
            )
        steps[step][its_rank] = path
    if not steps:
        raise BadRequest(problem=f"{folder} holds no dump of msprobe", fix="Name its dump_path.")
    record = Record(rows=[], samples={}, losses=[], about={})
    reader = _Reader(record)
    for step in sorted(steps):
        ranks = steps[step]
        chosen = ranks.get(rank, ranks.get(ALONE))
        if chosen is None:
            known = ", ".join(map(str, sorted(ranks)))
            raise BadRequest(problem=f"step {step} has no rank {rank}", fix=f"There are: {known}.")
        try:
            reader.read(step, chosen)
        except _BROKEN as error:
            raise BadRequest(
                problem=f"{chosen} cannot be read: {error}",
                fix="A dump is whole only after PrecisionDebugger.stop().",
            ) from error
    record.about |= {"form": FORM, "steps": len(steps), "rank": rank}
    return record


def _dumps(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """Each dump.json with its step and rank, however much of the path was named."""
    for path in sorted(folder.glob("dump.json")) or sorted(folder.glob("**/dump.json")):
        step = _STEP.search(path.parent.parent.name)
        rank = _RANK.search(path.parent.name)
        yield int(step[1]) if step else 0, int(rank[1]) if rank else _rank_of(path.parent), path


def _rank_of(folder: Path) -> int:
    return ALONE if folder.name.startswith("proc") else 0


class _Reader:
    """Fills a record step by step."""

    def __init__(self, record: Record) -> None:
        self._rows: list[dict[str, Any]] = []
        record.rows = self._rows
        self._record = record
        self._samples: dict[str, np.ndarray] = {}
        record.samples = self._samples
        self._losses: list[float] = []
        record.losses = self._losses

    def read(self, step: int, path: Path) -> None:
        table = json.loads(path.read_text())
        about = {name: table.get(name, "") for name in ("task", "level", "framework")}
        self._record.about |= about
        data, tensors = table["data"], path.parent / "dump_tensor_data"
        parents = _parents(path.parent / "construct.json")
        loss = None
        for name, entry in data.items():
            found = _NAME.match(name)
            if not found:
                continue
            row = self._row(step, found, name not in parents)
            given, made = _sides(entry, row["kind"], data, name)
            for side, values in (("in", given), ("out", made)):
                for key, value in values:
                    self._tensor(row, side, key, value, tensors)
            self._rows.append(row)
            if row["kind"] == "forward" and ("loss" in name.lower() or "cross_entropy" in name):
                loss = _scalar(made, loss)
        if loss is not None:
            self._losses.append(loss)

    def _row(self, step: int, found: re.Match[str], is_leaf: bool) -> dict[str, Any]:
        what = found["what"]
        if what.startswith(("Module.", "Cell.")):
            name, _, type_ = what.partition(".")[2].rpartition(".")
            way = found["way"]
        else:
            name, type_, way = f"{what}.{found['calls']}", "function", found["api_way"]
        kind = _KINDS[way or "forward"]
        return {
            "step": step,
            "kind": kind,
            "name": name or type_,
            "type": type_,
            "leaf": is_leaf,
            "in": {},
            "out": {},
        }

    def _tensor(
        self, row: dict[str, Any], side: str, key: str, value: Mapping[str, Any], tensors: Path
    ) -> None:
        about = {
            "shape": list(value.get("shape", ())),
            "finite": _is_finite(value),
            "dtype": str(value.get("dtype", "")).rpartition(".")[2].lower(),
        }
        for name, sample, kind in _samples(value, tensors, str(about["dtype"])):
            full = f"{key}{name}"
            row[side][full] = {**about, "dtype": kind}
            self._samples[f"{len(self._rows)}/{side}/{full}"] = sample


def _samples(
    value: Mapping[str, Any], tensors: Path, dtype: str
) -> Iterator[tuple[str, np.ndarray, str]]:
    """The comparable parts of a tensor: elements, statistics or checksum."""
    path = tensors / Path(str(value.get("data_name"))).name
    if value.get("data_name") and path.is_file():
        flat = _load(path)
        yield "", flat[:: max(1, -(-flat.size // SAMPLE))].copy(), dtype
    elif value.get("md5"):
        yield ":checksum", np.array([float(int(str(value["md5"]), 16))]), "checksum"
    else:
        if value.get("Norm") is not None:
            yield ":norm", np.array([float(value["Norm"])]), dtype
        if any(value.get(name) is not None for name in _STATISTICS):
            seen = [float(value.get(name) or 0.0) for name in _STATISTICS]
            yield ":range", np.array(seen), dtype


def _load(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64).reshape(-1)
    import torch  # noqa: PLC0415 - only dumps in torch's format need it

    tensor = torch.load(path, map_location="cpu", weights_only=True).detach()
    flat = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    made: np.ndarray = flat.reshape(-1).to(torch.float64).numpy()
    return made


def _sides(
    entry: Mapping[str, Any], kind: str, data: Mapping[str, Any], name: str
) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """Inputs and outputs of an entry, under the names that a record has for them."""
    if kind == "gradient":  # it follows from what came back to its module
        back = data.get(name.replace("parameters_grad", "backward"), {})
        made = [pair for key, value in entry.items() for pair in _named(value, key)]
        return list(_named(back.get("input", ()), "grad_out")), made
    if kind == "backward":
        given = _named(entry.get("input", entry.get("grad_output", ())), "grad_out")
        made = list(
            _named(entry.get("output", entry.get("grad_input", ())), "grad_in", alone=False)
        )
        return list(given), made
    given = _named(entry.get("input_args", entry.get("input", ())), "in", alone=False)
    rest = [
        *_named(entry.get("input_kwargs", {}), "in"),
        *_named(entry.get("parameters", {}), "of"),
    ]
    return [*given, *rest], list(_named(entry.get("output", ()), "out"))


def _named(value: Any, name: str, *, alone: bool = True) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Tensors in msprobe's nested lists; one alone has no number, as in a record."""
    if isinstance(value, Mapping):
        if "Tensor" in str(value.get("type", "")) and "shape" in value:
            yield name, value
            return
        for key, item in value.items():
            yield from _named(item, f"{name}.{key}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for at, item in enumerate(value):
            single = alone and len(value) == 1 and isinstance(item, Mapping)
            yield from _named(item, name if single else f"{name}.{at}")


def _scalar(made: Sequence[tuple[str, Mapping[str, Any]]], before: float | None) -> float | None:
    for _, value in made:
        if not value.get("shape") and value.get("Max") is not None:
            return float(value["Max"])
    return before


def _is_finite(value: Mapping[str, Any]) -> bool:
    seen = [value.get(name) for name in _STATISTICS]
    return all(one is None or (isinstance(one, (int, float)) and np.isfinite(one)) for one in seen)


def _parents(path: Path) -> frozenset[str]:
    """The names of entries that contain others."""
    try:
        return frozenset(filter(None, json.loads(path.read_text()).values()))
    except (OSError, ValueError):
        return frozenset()
