"""Compares two records: how close they are, within which limits, and where they first differ."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from karez.equivalence.distance import Row, side_error
from karez.equivalence.record import FLOORS, Record
from karez.equivalence.rounding_noise import RoundingNoise
from karez.equivalence.settings import differences
from karez.equivalence.verdict import Difference, Verdict

SPREAD = 8.0
"""Limit as a multiple of the reference's spread between two runs with sums in another order."""
OTHER_BATCHES = "it was given something else already: other data, order or random numbers"
"""Problem where inputs differ although no module made them differ."""
GRADIENT_FLOOR = 1e-2
"""Share of the largest gradient in a step by which differences of smaller ones are measured."""


def compare(reference: Record, other: Record, again: Record | None = None) -> Verdict:
    """Judge a run by a reference, and by the reference's spread where it was run twice.

    Args:
        reference: The run that counts as right.
        other: The run that is judged.
        again: A second run of the reference, with sums in another order.
    """
    left, right = reference.by_key(), other.by_key()
    verdict = Verdict(losses=(reference.losses, other.losses))
    verdict.unmatched = [_named(key) for key in left if key not in right]
    verdict.unmatched += [_named(key) for key in right if key not in left]
    verdict.settings = differences(
        reference.about.get("settings", {}), other.about.get("settings", {})
    )
    noise = RoundingNoise(reference)
    repeated = again.by_key() if again is not None else {}
    for key, number in left.items():
        if key not in right:
            continue
        pair = Row(reference, number), Row(other, right[key])
        if pair[0].about["out"] or pair[1].about["out"]:
            still, spread = noise.of(number), 0.0
            if again is not None and key in repeated:
                second = Row(again, repeated[key])
                spread = side_error(pair[0], second, "out", still=still)[0]
            scale = noise.scales.get(key[0], 0.0) * GRADIENT_FLOOR if key[1] == "optimizer" else 0.0
            verdict.differences.append(_difference(*pair, spread, still, scale))
    verdict.still, verdict.weights = noise.count()
    verdict.first = _first(verdict.differences)
    verdict.worst = max(verdict.differences, key=lambda difference: difference.error, default=None)
    _compare_losses(verdict, reference, other, again)
    return verdict


def _compare_losses(
    verdict: Verdict, reference: Record, other: Record, again: Record | None
) -> None:
    verdict.loss_error = _loss_error(reference.losses, other.losses)
    spread = _loss_error(reference.losses, again.losses) if again is not None else 0.0
    # differences by rounding grow from step to step
    growth = 1.0 + 0.25 * min(len(reference.losses), len(other.losses))
    verdict.loss_limit = max(SPREAD * spread, FLOORS[reference.widest_type] * growth)
    if len(reference.losses) != len(other.losses):
        verdict.unmatched.append(f"{len(reference.losses)} losses against {len(other.losses)}")


def _loss_error(reference: Sequence[float], other: Sequence[float]) -> float:
    pairs = zip(reference, other, strict=False)
    return max((abs(a - b) / max(abs(a), 1e-3) for a, b in pairs), default=0.0)


def _first(differences: Sequence[Difference]) -> Difference | None:
    """The earliest difference that begins; among modules nested in one another, the innermost."""
    earliest = next((difference for difference in differences if difference.is_off), None)
    if earliest is None:
        return None
    begins = [difference for difference in differences if difference.begins]
    same = [found for found in begins if (found.step, found.kind) == (earliest.step, "forward")]
    if earliest.kind == "forward" and not same:
        return replace(earliest, problem=OTHER_BATCHES)
    if not begins:
        return earliest
    first = begins[0]
    place = first.step, first.kind
    inner = [found for found in begins if (found.step, found.kind) == place and found.is_leaf]
    return inner[0] if inner and not first.is_leaf else first


def _difference(
    reference: Row, other: Row, spread: float, still: np.ndarray | None, scale: float
) -> Difference:
    a, b = reference.about, other.about
    error, limit, problem = side_error(reference, other, "out", still=still, scale=scale)
    input_error, input_limit, _ = side_error(reference, other, "in")
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
    for key, left in a["out"].items():
        right = b["out"][key]
        if left["shape"] != right["shape"]:
            return f"{key}: shape {left['shape']} against {right['shape']}"
        if left["dtype"] != right["dtype"]:
            return f"{key}: {left['dtype']} against {right['dtype']}"
        if left["finite"] != right["finite"]:
            return f"{key}: not finite in one of the runs"
    return ""


def _named(key: tuple[int, str, str, int]) -> str:
    step, kind, name, _ = key
    return f"{kind} of {name} in step {step + 1}"
