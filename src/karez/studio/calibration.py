"""Whether a model is right as often as it says. Pure."""

import math
from collections.abc import Sequence

from karez.studio.selective_answers import Judged

BINS = 10


def calibration(judged: Sequence[Judged]) -> dict[str, object]:
    """How far confidence and accuracy lie apart.

    Returns:
        `error`, the expected calibration error over bins of equal width (Naeini, Cooper and
        Hauskrecht 2015; Guo et al. 2017), `brier` of right or wrong (Brier 1950), and `bins` of
        (answers, mean confidence, share that is right) from the least confident to the surest.
    """
    binned: list[list[Judged]] = [[] for _ in range(BINS)]
    for one in judged:
        binned[min(BINS - 1, max(0, math.ceil(one.confidence * BINS) - 1))].append(one)
    bins = [
        (
            len(some),
            math.fsum(one.confidence for one in some) / len(some),
            sum(one.is_right for one in some) / len(some),
        )
        for some in binned
        if some
    ]
    total = max(1, len(judged))
    squares = math.fsum((one.confidence - one.is_right) ** 2 for one in judged)
    return {
        "error": math.fsum(count * abs(sure - right) for count, sure, right in bins) / total,
        "brier": squares / total,
        "bins": [list(one) for one in bins],
    }
