"""The record of one run: samples of what its modules computed, read back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FLOORS = {
    "float64": 1e-9,
    "float32": 2e-5,
    "tf32": 1e-3,
    "float16": 2e-3,
    "bfloat16": 1.6e-2,
    "complex64": 2e-5,
    "complex128": 1e-9,
}
"""Relative differences that the order of sums alone may make, by type: a few times the type's
precision for sums of some thousand terms. The reference's own spread raises them."""
SAMPLE = 2048
"""Elements of a tensor that are kept in a record."""


@dataclass(slots=True)
class Record:
    """One recorded run."""

    rows: Sequence[dict[str, Any]]
    samples: Mapping[str, np.ndarray]
    losses: Sequence[float]
    about: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """Read a recorder's folder. Raises FileNotFoundError."""
        about = json.loads((folder / "record.json").read_text())
        with np.load(folder / "samples.npz") as file:
            samples = {key: file[key] for key in file.files}
        rows, losses = about.pop("rows"), about.pop("losses")
        return cls(rows=rows, samples=samples, losses=losses, about=about)

    @property
    def widest_type(self) -> str:
        """The coarsest type among results, which bounds a loss."""
        kinds = {about["dtype"] for row in self.rows for about in row["out"].values()}
        return max((k for k in kinds if k in FLOORS), key=FLOORS.__getitem__, default="float32")

    def by_key(self) -> dict[tuple[int, str, str, int], int]:
        """Row numbers by step, kind, name and how many rows before have the same three."""
        repeats: dict[tuple[int, str, str], int] = {}
        numbers: dict[tuple[int, str, str, int], int] = {}
        for number, row in enumerate(self.rows):
            key = row["step"], row["kind"], row["name"]
            repeats[key] = repeats.get(key, -1) + 1
            numbers[*key, repeats[key]] = number
        return numbers
