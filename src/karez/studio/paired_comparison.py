"""Whether one model is better than another on the same rows. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Z_95, RISK = 1.959964, 0.05
_HALVINGS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """What two models got right of the same rows."""

    rows: int
    only_first: int
    """Rows that the first one alone got right."""
    only_second: int

    def __post_init__(self) -> None:
        if min(self.only_first, self.only_second) < 0 or self.rows < 1:
            raise ValueError(f"counts of rows, got {self}")
        if self.only_first + self.only_second > self.rows:
            raise ValueError(f"more rows differ than there are: {self}")

    @property
    def difference(self) -> float:
        """Accuracy of the second one less that of the first."""
        return (self.only_second - self.only_first) / self.rows

    def interval(self, z: float = Z_95) -> tuple[float, float]:
        """Interval of the difference, from the score test; it is no point where no row differs.

        Source: T. Tango, "Equivalence test and confidence interval for the difference in
            proportions for the paired-sample design", Statistics in Medicine 17, 1998.
        """
        return self._bound(-1.0, -z), self._bound(1.0, z)

    def p_value(self) -> float:
        """Chance of so uneven a difference between equal models: McNemar's exact test."""
        differ, fewer = self.only_first + self.only_second, min(self.only_first, self.only_second)
        halves = differ * math.log(2)
        tail = (math.exp(_log_choose(differ, k) - halves) for k in range(fewer + 1))
        return min(1.0, 2 * math.fsum(tail))

    def _bound(self, far: float, z: float) -> float:
        """The difference at which the score is z, between what was seen and an end."""
        inner, outer = self.difference, far
        for _ in range(_HALVINGS):
            middle = (inner + outer) / 2
            if abs(self._score(middle)) < abs(z):
                inner = middle
            else:
                outer = middle
        return inner

    def _score(self, difference: float) -> float:
        """How far what was seen lies from a difference, in its standard deviations there."""
        n, first, second = self.rows, self.only_first, self.only_second
        gap = second - first - n * difference
        b = -second - first + (2 * n - second + first) * difference
        c = -first * difference * (1 - difference)
        root = math.sqrt(max(0.0, b * b - 8 * n * c))
        share = max(0.0, (root - b) / (4 * n))
        variance = n * (2 * share + difference * (1 - difference))
        if variance <= 0:
            return 0.0 if abs(gap) < 1e-12 * n else math.copysign(math.inf, gap)
        return gap / math.sqrt(variance)


def compare(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """Compare what two models got right, row by row. Raises ValueError for unequal numbers."""
    pairs = list(zip(first, second, strict=True))
    return Paired(
        rows=len(pairs),
        only_first=sum(a and not b for a, b in pairs),
        only_second=sum(b and not a for a, b in pairs),
    )


def paired_report(
    before: Sequence[bool], after: Sequence[bool], what: str = "the model less its base"
) -> dict[str, Any]:
    """What a report says of two measurements of the same rows: `words` for people, and figures."""
    paired = compare(before, after)
    low, high = paired.interval()
    verdict = "better" if low > 0 else "worse" if high < 0 else ""
    if paired.p_value() > RISK:
        verdict = ""  # of few rows the two tests may differ, and both have to agree
    return {
        "only_before": paired.only_first,
        "only_after": paired.only_second,
        "difference": paired.difference,
        "difference_95": [low, high],
        "p_value": paired.p_value(),
        "words": f"{what}, row by row: {paired.difference:+.1%} (95%: {low:+.1%} "
        f"to {high:+.1%}, McNemar's p {paired.p_value():.2g}): "
        f"{verdict or 'no difference is shown'}",
    }


def _log_choose(of: int, k: int) -> float:
    return math.lgamma(of + 1) - math.lgamma(k + 1) - math.lgamma(of - k + 1)
