"""What a report says of answering only where a model is sure enough. Pure."""

from collections.abc import Sequence
from typing import Any

from karez.studio.confidence_intervals import wilson
from karez.studio.selective_answers import (
    Judged,
    NoThreshold,
    answered_from,
    choose_threshold,
    curve,
    least_share,
)


def selective(
    validation: Sequence[Judged], held_out: Sequence[Judged], target: float
) -> dict[str, Any]:
    """Choose a threshold on validation rows alone, and judge it on held-out rows.

    Returns:
        `words` for people, `curve` of (coverage, accuracy), and where a threshold was found
        `confidence`, `coverage`, `accuracy` with its 95% interval, the exact lower bound `least`
        (one-sided, 95%), and `is_shown`: whether that bound reaches the target.
    """
    chosen = choose_threshold(validation, target)
    report: dict[str, Any] = {
        "target": target,
        "validation_rows": len(validation),
        "curve": [list(point) for point in curve(held_out)],
    }
    if isinstance(chosen, NoThreshold):
        return {**report, "words": f"no answers at {target:.0%}: {chosen.reason}"}
    given = answered_from(held_out, chosen.confidence)
    report |= {
        "confidence": chosen.confidence,
        "chosen_on": {"answered": chosen.chosen_on.answered, "right": chosen.chosen_on.right},
        "answered": given.answered,
        "right": given.right,
        "coverage": given.coverage,
    }
    if not given.answered:
        words = f"no held-out row is as sure as {target:.0%} needs"
        return {**report, "accuracy": None, "is_shown": False, "words": words}
    low, high = wilson(given.right, given.answered)
    least = least_share(given.right, given.answered)
    shown = "shown" if least >= target else "not shown by so few rows"
    return {
        **report,
        "accuracy": given.right / given.answered,
        "accuracy_95": [low, high],
        "least": least,
        "is_shown": least >= target,
        "words": f"answers {given.coverage:.1%} of the rows, {given.right / given.answered:.1%} of "
        f"them right (95%: {low:.1%} to {high:.1%}); at least {target:.0%}: {shown}",
    }
