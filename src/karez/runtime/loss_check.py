"""Checks of a step's loss: values that are not finite, and sudden spikes."""

import math
from collections.abc import Sequence
from statistics import fmean, pstdev

SPIKE_AFTER = 20
"""Losses that must be known before one can be called a spike."""


def problem_with(loss: float, previous: Sequence[float], spike: float) -> str:
    """Describe what is wrong with a loss; empty if nothing is.

    Args:
        loss: The loss of the step that ends.
        previous: The losses of the steps before.
        spike: Standard deviations above the mean of `previous` that are too much; 0: any is fine.
    """
    if not math.isfinite(loss):
        return f"the loss was {loss}"
    if not spike or len(previous) < SPIKE_AFTER:
        return ""
    mean, spread = fmean(previous), pstdev(previous)
    if loss > mean + spike * max(spread, 1e-12):
        return f"the loss leapt to {loss:.4g} from {mean:.4g} on average"
    return ""
