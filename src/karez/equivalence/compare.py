"""Two records against each other: how close, within what, and where they first part."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
SPREAD = 8.0
"""Times the reference's own spread between two runs with sums in another order."""
EXACT = 0.0
SAMPLE = 2048
"""Elements of a tensor that are kept in a record."""
SMALL = 1e-12
OTHER_BATCHES = "it was given something else already: other data, order or random numbers"
"""Where inputs differ although no module made them differ."""
ROUNDING = 1e-5
"""Of the largest gradient of all parameters in a step: what is below it is rounding."""
GRADIENT_FLOOR = 1e-2
"""Of the same: differences of smaller gradients are measured by this."""


@dataclass(slots=True)
class Record:
    """One run, read back."""

    rows: Sequence[dict[str, Any]]
    samples: Mapping[str, np.ndarray]
    losses: Sequence[float]
    about: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """From a recorder's folder. Raises FileNotFoundError."""
        about = json.loads((folder / "record.json").read_text())
        with np.load(folder / "samples.npz") as file:
            samples = {key: file[key] for key in file.files}
        rows, losses = about.pop("rows"), about.pop("losses")
        return cls(rows=rows, samples=samples, losses=losses, about=about)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One module, or one parameter, in one step."""

    step: int
    kind: str
    name: str
    type: str
    is_leaf: bool
    error: float
    """Of its results, relative to the largest."""
    limit: float
    input_error: float
    input_limit: float
    problem: str = ""
    """A shape or a type that differs, or a value that is not finite."""

    @property
    def is_off(self) -> bool:
        """Whether its results differ by more than they may."""
        return bool(self.problem) or self.error > self.limit

    @property
    def begins(self) -> bool:
        """Whether they do although its inputs do not."""
        return self.is_off and self.input_error <= self.input_limit


@dataclass(slots=True, kw_only=True)
class Verdict:
    """The comparison as a whole."""

    differences: list[Difference] = field(default_factory=list)
    first: Difference | None = None
    """The first module whose inputs agree and whose results do not."""
    unmatched: list[str] = field(default_factory=list)
    """Modules that only one of the runs has."""
    loss_error: float = 0.0
    loss_limit: float = 0.0
    losses: tuple[Sequence[float], Sequence[float]] = ((), ())
    needs_losses: bool = True
    """Whether a run without losses shows nothing."""
    worst: Difference | None = None
    still: int = 0
    """Elements of parameters whose gradient was never more than rounding; they are not compared."""
    weights: int = 0

    @property
    def is_lossless(self) -> bool:
        """Whether nothing differs by more than it may."""
        is_off = any(one.is_off for one in self.differences) or bool(self.unmatched)
        was_seen = bool(self.losses[0]) or (not self.needs_losses and bool(self.differences))
        return not is_off and self.loss_error <= self.loss_limit and was_seen


def compare(reference: Record, other: Record, again: Record | None = None) -> Verdict:
    """Judge a run by a reference, and by the reference's own spread where it was run twice."""
    left, right = _by_key(reference), _by_key(other)
    repeated = _by_key(again) if again is not None else {}
    verdict = Verdict(losses=(reference.losses, other.losses))
    verdict.unmatched = [_named(key) for key in left if key not in right]
    verdict.unmatched += [_named(key) for key in right if key not in left]
    noise = _Noise(reference)
    for key, number in left.items():
        if key in right and (reference.rows[number]["out"] or other.rows[right[key]]["out"]):
            still = noise.of(number)
            own = 0.0
            if again is not None and key in repeated:
                own = _side(reference, number, again, repeated[key], "out", still=still)[0]
            pair = _Pair(reference, number, other, right[key], own, still)
            verdict.differences.append(_difference(pair, noise))
    verdict.still, verdict.weights = noise.count()
    off = [one for one in verdict.differences if one.begins]
    verdict.first = _first(off, verdict.differences)
    verdict.worst = max(verdict.differences, key=lambda one: one.error, default=None)
    pairs = list(zip(reference.losses, other.losses, strict=False))
    verdict.loss_error = max((abs(a - b) / max(abs(a), 1e-3) for a, b in pairs), default=0.0)
    own = 0.0
    if again is not None:
        own = max(
            (
                abs(a - b) / max(abs(a), 1e-3)
                for a, b in zip(reference.losses, again.losses, strict=False)
            ),
            default=0.0,
        )
    # what is off by rounding grows from step to step
    growth = 1.0 + 0.25 * len(pairs)
    verdict.loss_limit = max(SPREAD * own, FLOORS[_widest(reference)] * growth)
    if len(reference.losses) != len(other.losses):
        verdict.unmatched.append(f"{len(reference.losses)} losses against {len(other.losses)}")
    return verdict


def _first(begins: Sequence[Difference], all_of: Sequence[Difference]) -> Difference | None:
    """The earliest; among those nested in one another, the innermost."""
    earliest = next((one for one in all_of if one.is_off), None)
    if earliest is None:
        return None
    same = [one for one in begins if (one.step, one.kind) == (earliest.step, "forward")]
    if earliest.kind == "forward" and not same:
        return replace(earliest, problem=OTHER_BATCHES)
    if not begins:
        return earliest
    first = begins[0]
    inner = [
        one for one in begins if one.step == first.step and one.kind == first.kind and one.is_leaf
    ]
    return inner[0] if inner and not first.is_leaf else first


class _Noise:
    """Which elements of the parameters move by rounding alone.

    An adaptive optimizer divides a gradient by its own size: where it is nothing but rounding, such
    as for the bias of keys in attention, the step is as large as any other, and random.
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
        """True for the elements of a parameter that are not to be compared."""
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
        """Elements that are still, and all."""
        masks = self._still.values()
        return sum(int(mask.sum()) for mask in masks), sum(mask.size for mask in masks)


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two rows that are to be compared, and the first one's own spread."""

    reference: Record
    number: int
    other: Record
    at: int
    spread: float
    still: np.ndarray | None


def _difference(pair: _Pair, noise: _Noise) -> Difference:
    reference, number, other, at = pair.reference, pair.number, pair.other, pair.at
    spread = pair.spread
    a, b = reference.rows[number], other.rows[at]
    scale = noise.scales.get(a["step"], 0.0) * GRADIENT_FLOOR if a["kind"] == "optimizer" else 0.0
    error, limit, problem = _side(
        reference, number, other, at, "out", still=pair.still, scale=scale
    )
    input_error, input_limit, _ = _side(reference, number, other, at, "in")
    return Difference(
        step=a["step"],
        kind=a["kind"],
        name=a["name"],
        type=a["type"],
        is_leaf=a["leaf"],
        error=error,
        limit=max(limit, SPREAD * spread),
        input_error=input_error,
        input_limit=max(input_limit, SPREAD * spread),
        problem=problem or _kinds(a, b),
    )


def _kinds(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    if set(a["out"]) != set(b["out"]):
        return f"results {sorted(a['out'])} against {sorted(b['out'])}"
    for key, one in a["out"].items():
        two = b["out"][key]
        if one["shape"] != two["shape"]:
            return f"{key}: shape {one['shape']} against {two['shape']}"
        if one["dtype"] != two["dtype"]:
            return f"{key}: {one['dtype']} against {two['dtype']}"
        if one["finite"] != two["finite"]:
            return f"{key}: not finite in one of the runs"
    return ""


def _side(  # noqa: PLR0913 - two places in two records
    reference: Record,
    number: int,
    other: Record,
    at: int,
    side: str,
    *,
    still: np.ndarray | None = None,
    scale: float = 0.0,
) -> tuple[float, float, str]:
    worst, limit = 0.0, FLOORS["float64"]
    for key, about in reference.rows[number][side].items():
        there = other.rows[at][side].get(key)
        a = reference.samples[f"{number}/{side}/{key}"]
        b = other.samples.get(f"{at}/{side}/{key}")
        if there is None or b is None or a.shape != b.shape:
            continue
        kinds = (about["dtype"], there["dtype"])
        floor = max(FLOORS.get(kind, EXACT) for kind in kinds)
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
    """The largest difference, relative to the largest value or to `least`; 0 for two alike."""
    if a.size == 0:
        return 0.0
    with np.errstate(invalid="ignore"):
        gap = np.abs(a - b)
    if not np.isfinite(gap).all():
        finite = np.isfinite(a) & np.isfinite(b)
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            return float("inf")  # a mask's -inf stands in both; anything else does not
        return distance(a[finite], b[finite], least)
    scale = max(float(np.abs(a).max()), float(np.abs(b).max()), least)
    return float(gap.max()) / max(scale, SMALL) if scale > SMALL else 0.0


def _by_key(record: Record) -> dict[tuple[int, str, str, int], int]:
    """Rows by step, kind, name and how often that came before."""
    seen: dict[tuple[int, str, str], int] = {}
    found: dict[tuple[int, str, str, int], int] = {}
    for number, row in enumerate(record.rows):
        key = row["step"], row["kind"], row["name"]
        seen[key] = seen.get(key, -1) + 1
        found[*key, seen[key]] = number
    return found


def _named(key: tuple[int, str, str, int]) -> str:
    step, kind, name, _ = key
    return f"{kind} of {name} in step {step + 1}"


def _widest(record: Record) -> str:
    """The coarsest type among results: what bounds a loss."""
    kinds = {about["dtype"] for row in record.rows for about in row["out"].values()}
    return max((k for k in kinds if k in FLOORS), key=FLOORS.__getitem__, default="float32")
