"""Confidence intervals for measured shares. Pure."""

import math


def wilson(right: int, of: int, *, z: float = 1.959964) -> tuple[float, float]:
    """Interval of a share from `right` hits in `of` trials; z = 1.96 gives 95%.

    Raises:
        ValueError: No trials, or more hits than trials.

    Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
        JASA 22(158), 1927.
    """
    if of < 1 or not 0 <= right <= of:
        raise ValueError(f"need 0 <= right <= of and of >= 1, got {right} of {of}")
    share = right / of
    middle = share + z * z / (2 * of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    scale = 1 + z * z / of
    low = 0.0 if right == 0 else (middle - half) / scale  # exact, where rounding would miss it
    high = 1.0 if right == of else (middle + half) / scale
    return low, high
