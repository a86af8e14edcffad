"""Detects ranks that are much slower than the others of their gang, from step times. Pure."""

from collections import deque
from dataclasses import dataclass, field
from statistics import fmean, median, pstdev

SAMPLES, SIGMAS, SLOWER, IN_A_ROW = 20, 3.0, 0.3, 3
"""A straggler's mean over SAMPLES steps is slower than the other ranks' median by SLOWER (a share)
and by SIGMAS standard deviations, IN_A_ROW times. Defaults of the sub-health rules in the design
notes on resilience."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Straggler:
    """A rank that is much slower than the other ranks."""

    rank: int
    factor: float
    """The rank's mean step time, divided by the median of the other ranks."""


@dataclass(slots=True, kw_only=True)
class StragglerDetector:
    """The newest step times of each rank of one gang."""

    _busy: dict[int, deque[float]] = field(default_factory=dict)
    """Rank -> seconds that its newest steps took, without waiting for others."""
    _slow: dict[int, int] = field(default_factory=dict)
    """Rank -> how often in a row it was slower."""
    _checks: int = 0

    def record(self, rank: int, busy_s: float) -> None:
        """Record the time that one step took on one rank."""
        self._busy.setdefault(rank, deque(maxlen=SAMPLES)).append(busy_s)

    def check(self, *, ranks: int) -> Straggler | None:
        """The rank of a gang of `ranks` that is slower by all four measures; call every step."""
        self._checks += 1
        full = {rank: list(times) for rank, times in self._busy.items() if len(times) == SAMPLES}
        if self._checks % (SAMPLES * max(1, ranks)) or len(full) < 2:
            return None
        straggler = None
        for rank, times in full.items():
            others = [t for peer, own in full.items() if peer != rank for t in own]
            usual, spread = median(others), pstdev(others)
            mean = fmean(times)
            is_slow = mean > usual * (1 + SLOWER) and mean > usual + SIGMAS * spread
            self._slow[rank] = self._slow.get(rank, 0) + 1 if is_slow else 0
            if self._slow[rank] == IN_A_ROW:
                straggler = Straggler(rank=rank, factor=mean / usual if usual else 0.0)
        return straggler
