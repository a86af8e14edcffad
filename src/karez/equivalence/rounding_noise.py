"""Finds the elements of parameters that move by rounding alone."""

import numpy as np

from karez.equivalence.record import Record

ROUNDING = 1e-5
"""Share of the largest gradient in a step below which a gradient is rounding."""


class RoundingNoise:
    """The elements of the parameters that move by rounding alone.

    An adaptive optimizer divides a gradient by its own size: where the gradient is only
    rounding, such as for the bias of keys in attention, the step is as large as any other,
    and random.
    """

    def __init__(self, reference: Record) -> None:
        self._reference = reference
        self._still: dict[tuple[str, int], np.ndarray] = {}
        self.scales: dict[int, float] = {}
        for number, row in enumerate(reference.rows):
            sample = reference.samples.get(f"{number}/out/gradient")
            if row["kind"] == "optimizer" and sample is not None and sample.size:
                largest = float(np.abs(sample).max())
                self.scales[row["step"]] = max(self.scales.get(row["step"], 0.0), largest)

    def of(self, number: int) -> np.ndarray | None:
        """Mask of the elements of a parameter that are not compared, so far."""
        row = self._reference.rows[number]
        sample = self._reference.samples.get(f"{number}/out/gradient")
        if row["kind"] != "optimizer" or sample is None:
            return None
        now = np.abs(sample) <= ROUNDING * self.scales[row["step"]]
        key = row["name"], now.size
        before = self._still.get(key)
        self._still[key] = now if before is None else before | now
        return self._still[key]

    def count(self) -> tuple[int, int]:
        """The number of elements that are not compared, and of all."""
        masks = self._still.values()
        return sum(int(mask.sum()) for mask in masks), sum(mask.size for mask in masks)
