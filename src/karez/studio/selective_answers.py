"""Answering only where a model is sure enough: a threshold from some rows, judged on others. Pure.

The threshold is tested by "Learn then Test" (Angelopoulos, Bates, Candes, Jordan and Lei 2021,
arXiv:2110.01052), with fixed sequences from several starts: by chance of the rows it was chosen on,
a threshold misses its target no more often than RISK.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

RISK = 0.05
STARTS = (0.2, 0.4, 0.6, 0.8)
"""Shares of the rows at which a sequence of tests begins; each has its part of RISK."""
_STEP = 0.01
_HALVINGS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """An answer: how sure the model was of it, and whether it was right."""

    confidence: float
    is_right: bool

    def __post_init__(self) -> None:
        if math.isnan(self.confidence):
            raise ValueError("a confidence is a number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What was answered of some rows, and how much of that was right."""

    rows: int
    answered: int
    right: int

    @property
    def coverage(self) -> float:
        """Share of the rows that were answered."""
        return self.answered / self.rows if self.rows else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Answers of at least this confidence are given."""

    confidence: float
    chosen_on: Answered


@dataclass(frozen=True, slots=True, kw_only=True)
class NoThreshold:
    """No threshold reaches the target, and why."""

    reason: str


def choose_threshold(judged: Sequence[Judged], target: float) -> Threshold | NoThreshold:
    """Choose the threshold that answers most, and whose answers are right in at least `target`.

    Raises:
        ValueError: The target is no share below 1.
    """
    if not 0 < target < 1:
        raise ValueError(f"a target is a share between 0 and 1, got {target}")
    ranked = sorted(judged, key=lambda one: -one.confidence)
    needed = rows_needed(target)
    if len(ranked) < needed:
        return NoThreshold(
            reason=f"{len(ranked)} validation rows are too few: {target:.0%} needs {needed} "
            "answers without a fault"
        )
    right = [0]
    for one in ranked:
        right.append(right[-1] + one.is_right)
    best = 0
    for start in STARTS:
        for count in _prefixes(ranked, start, needed):
            if chance_of_at_most(count - right[count], count, 1 - target) > RISK / len(STARTS):
                break
            best = max(best, count)
    if not best:
        sure = next(_prefixes(ranked, STARTS[0], needed))
        return NoThreshold(
            reason=f"{right[sure]} of the {sure} surest of {len(ranked)} validation rows are "
            f"right, which does not show {target:.0%}"
        )
    chosen_on = Answered(rows=len(ranked), answered=best, right=right[best])
    return Threshold(confidence=ranked[best - 1].confidence, chosen_on=chosen_on)


def answered_from(judged: Sequence[Judged], confidence: float) -> Answered:
    """Answer the rows of at least a confidence."""
    given = [one for one in judged if one.confidence >= confidence]
    return Answered(rows=len(judged), answered=len(given), right=sum(one.is_right for one in given))


def curve(judged: Sequence[Judged], points: int = 20) -> list[tuple[float, float]]:
    """Return (coverage, share that is right) of the surest rows, from few of them to all."""
    ranked = sorted(judged, key=lambda one: -one.confidence)
    steps = {math.ceil(len(ranked) * (k + 1) / points) for k in range(points)} - {0}
    counts = sorted({_with_equals(ranked, count) for count in steps})
    return [
        (count / len(ranked), sum(one.is_right for one in ranked[:count]) / count)
        for count in counts
    ]


def rows_needed(target: float) -> int:
    """Answers without a fault that show a target at a part of RISK."""
    return math.ceil(math.log(RISK / len(STARTS)) / math.log(target))


def least_share(right: int, of: int, risk: float = RISK) -> float:
    """Lower bound of a share, exact and one-sided (Clopper and Pearson 1934); 0 of no rows."""
    if not right:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if chance_of_at_most(of - right, of, 1 - middle) <= risk:
            low = middle
        else:
            high = middle
    return low


def chance_of_at_most(faults: int, of: int, rate: float) -> float:
    """Chance of at most so many faults in `of` trials, each with a chance of `rate`."""
    if faults >= of or rate <= 0:
        return 1.0
    if rate >= 1:
        return 0.0
    logs = (
        math.lgamma(of + 1)
        - math.lgamma(k + 1)
        - math.lgamma(of - k + 1)
        + k * math.log(rate)
        + (of - k) * math.log1p(-rate)
        for k in range(faults + 1)
    )
    return min(1.0, math.fsum(map(math.exp, logs)))


def _prefixes(ranked: Sequence[Judged], start: float, least: int) -> Iterator[int]:
    """Numbers of the surest rows to test: from a share of them, and `least`, to all."""
    total, last = len(ranked), 0
    for step in range(round((1 - start) / _STEP) + 1):
        share = math.ceil(total * (start + step * _STEP) - 1e-9)
        count = _with_equals(ranked, min(total, max(share, least)))
        if count > last:
            yield count
            last = count


def _with_equals(ranked: Sequence[Judged], count: int) -> int:
    """So many of the surest rows, and those that are as sure as the last of them."""
    while count < len(ranked) and ranked[count].confidence == ranked[count - 1].confidence:
        count += 1
    return count
