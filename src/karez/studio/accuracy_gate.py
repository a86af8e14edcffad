"""Whether a model that was made smaller lost no more than was allowed. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, fsum, sqrt

from karez.core.errors import AccuracyLost
from karez.studio.paired_comparison import Paired

Z_ONE_SIDED = 1.644854
"""Of a one-sided bound of 95%."""
LEAST_SCORE = 0.05
"""A reference that is right less often than this has nothing to lose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """How a smaller model did beside its reference, on the same rows."""

    rows: int
    reference: float
    """Mean score of the reference."""
    score: float
    lost_at_most: float
    """Upper bound of what was lost, one-sided, 95%."""

    def show(self) -> str:
        """Describe it for people."""
        return (
            f"{self.score:.1%} of {self.rows} rows, the reference {self.reference:.1%}; "
            f"it lost at most {max(0.0, self.lost_at_most):.1%} (95%)"
        )


def measure_gate(reference: Sequence[float], scores: Sequence[float]) -> Gate:
    """Compare scores between 0 and 1 of the same rows.

    Right and wrong are compared by a score test (Tango 1998), other scores by the normal bound of
    their mean difference, which is no better than that test's where no row differs: rows that lose
    much may be too rare to be seen among a few.
    """
    rows = len(reference)
    gaps = [before - after for before, after in zip(reference, scores, strict=True)]
    if set(reference) | set(scores) <= {0.0, 1.0}:
        paired = Paired(
            rows=rows,
            only_first=sum(gap > 0 for gap in gaps),
            only_second=sum(gap < 0 for gap in gaps),
        )
        lost = -paired.interval(Z_ONE_SIDED)[0]
    else:
        mean = fsum(gaps) / rows
        spread = sqrt(fsum((gap - mean) ** 2 for gap in gaps) / max(1, rows - 1) / rows)
        lost = mean + max(Z_ONE_SIDED * spread, least_bound(rows))
    return Gate(
        rows=rows,
        reference=sum(reference) / rows,
        score=sum(scores) / rows,
        lost_at_most=lost,
    )


def least_bound(rows: int) -> float:
    """The bound of rows of which none differs: fewer rows cannot show a smaller loss."""
    return Z_ONE_SIDED**2 / (rows + Z_ONE_SIDED**2)


def check_gate(name: str, gate: Gate, allowed: float) -> None:
    """Let a model pass that lost no more than was allowed.

    Raises:
        AccuracyLost: It lost more, or these rows cannot show that it did not.
    """
    if gate.reference < LEAST_SCORE:
        raise AccuracyLost(
            name=name,
            problem=f"its reference is right in {gate.reference:.1%} of {gate.rows} rows, which "
            "shows nothing",
            fix="Measure it on rows that the reference answers, or with the measure f1.",
        )
    if gate.lost_at_most <= allowed:
        return
    least = least_bound(gate.rows)
    if least > allowed:
        needed = ceil(Z_ONE_SIDED**2 * (1 - allowed) / allowed) if allowed else 0
        raise AccuracyLost(
            name=name,
            problem=f"{gate.rows} rows cannot show a loss of at most {allowed:.1%}: they show "
            f"{least:.1%} where no answer differs",
            fix=f"Measure on {needed:,} rows or more, or allow more by max_loss."
            if needed
            else "Allow more by max_loss: no number of rows shows that nothing is lost.",
        )
    raise AccuracyLost(
        name=name,
        problem=f"{gate.show()}, and {allowed:.1%} is allowed",
        fix="Choose a type with more bits, or allow more by max_loss.",
    )
