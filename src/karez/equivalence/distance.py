"""Measures the difference of two rows: tensor by tensor, within what their types allow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from karez.equivalence.record import FLOORS, Record

EXACT = 0.0
SMALL = 1e-12


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a record."""

    record: Record
    number: int

    @property
    def about(self) -> Mapping[str, Any]:
        """The row's description, as the record has it."""
        return self.record.rows[self.number]

    def sample(self, side: str, key: str) -> np.ndarray:
        """The sample of one tensor. Raises KeyError if the record has none."""
        return self.record.samples[f"{self.number}/{side}/{key}"]

    def has(self, side: str, key: str) -> bool:
        """Whether the row names a tensor and the record has its sample."""
        return key in self.about[side] and f"{self.number}/{side}/{key}" in self.record.samples


def side_error(
    reference: Row, other: Row, side: str, *, still: np.ndarray | None = None, scale: float = 0.0
) -> tuple[float, float, str]:
    """The largest error of the tensors `in` or `out`, the limit for it, and a problem if any.

    Args:
        reference: The row that counts as right.
        other: The row that is judged.
        side: `in` or `out`.
        still: True for the elements that are not compared.
        scale: Least size by which differences of gradients are measured.
    """
    worst, limit = 0.0, FLOORS["float64"]
    for key, about in reference.about[side].items():
        a = reference.sample(side, key)
        if not other.has(side, key) or a.shape != other.sample(side, key).shape:
            continue
        b, types = other.sample(side, key), (about["dtype"], other.about[side][key]["dtype"])
        floor = max(FLOORS.get(dtype, EXACT) for dtype in types)
        if still is not None and still.shape == a.shape and key != "gradient":
            a, b = a[~still], b[~still]
        error = distance(a, b, scale if key == "gradient" else 0.0)
        if floor == EXACT and error > 0:
            return error, 0.0, f"{key}: whole numbers differ"
        if floor:
            limit = max(limit, floor)
            worst = max(worst, error)
    return worst, limit, ""


def distance(a: np.ndarray, b: np.ndarray, least: float = 0.0) -> float:
    """The largest difference, relative to the largest value or to `least`; 0 for equal arrays."""
    if a.size == 0:
        return 0.0
    with np.errstate(invalid="ignore"):
        gap = np.abs(a - b)
    if not np.isfinite(gap).all():
        finite = np.isfinite(a) & np.isfinite(b)
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            return float("inf")  # a mask's -inf is in both arrays; anything else is a difference
        return distance(a[finite], b[finite], least)
    scale = max(float(np.abs(a).max()), float(np.abs(b).max()), least)
    return float(gap.max()) / max(scale, SMALL) if scale > SMALL else 0.0
