"""Choice of the CPU cores that a worker is pinned to."""

import numpy as np

from karez.core.units import MILLI
from karez.scheduling.placement.inventory import Ints


def pin_cores(free: Ints, milli: int) -> list[tuple[int, int]]:
    """Choose cores for an amount: whole ones first, then the tightest that holds the rest.

    Args:
        free: (cores,) free thousandths of each core.
        milli: Thousandths of a core to pin, at most what is free.

    Returns:
        (core number, thousandths) of each core chosen.
    """
    pinned: list[tuple[int, int]] = []
    for core in np.flatnonzero(free == MILLI)[: milli // MILLI].tolist():
        pinned.append((core, MILLI))
    missing = milli - MILLI * len(pinned)
    while missing > 0:
        open_cores = [(int(free[c]), c) for c in range(len(free)) if free[c] > 0]
        open_cores = [(left, c) for left, c in open_cores if c not in dict(pinned)]
        fitting = [(left, c) for left, c in open_cores if left >= missing]
        left, core = min(fitting) if fitting else max(open_cores)
        pinned.append((core, min(left, missing)))
        missing -= min(left, missing)
    return pinned
