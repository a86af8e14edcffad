"""Detects late steps from step times. Pure.

No limit is fixed. A step is late once it takes several times as long as nearly all before it; then
the processes are sampled, twice, before a rank counts as hung (see hang_diagnosis).
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from karez.training.recovery.straggler_detector import Straggler, StragglerDetector

FACTOR = 5.0
"""A step is late after this multiple of the 99th percentile of the steps before."""
FIRST_S = 60.0
"""Limit for a step while few are known: compilers and caches make the first steps long."""
KNOWN = 5
"""Steps from which a limit is computed."""
FIRST_FACTOR = 3.0
"""The first step of a generation may take this multiple of the limit: caches are cold."""
MOST_DOUBLINGS = 6
"""How often verdicts may double the limit."""


@dataclass(slots=True, kw_only=True)
class HangDetector:
    """Step times of one gang, and the limit that follows from them."""

    floor_s: float = 5.0
    """The lowest limit."""
    _gaps: deque[float] = field(default_factory=lambda: deque(maxlen=500))
    _last: dict[int, float] = field(default_factory=dict)
    """Rank -> time of its last event in this generation."""
    stragglers: StragglerDetector = field(default_factory=StragglerDetector)
    _verdicts: int = 0
    """Hang verdicts since the last step: each doubles the limit, so that no wrong one recurs."""
    _cold: set[int] = field(default_factory=set)
    """Ranks that have not completed a step of this generation."""
    _limit_s: float = 0.0

    def begin(self, ranks: Iterable[int], now: float) -> None:
        """Begin a generation with these ranks."""
        self._last = dict.fromkeys(ranks, now)
        self._cold = set(self._last)

    def record_event(self, rank: int, busy_s: float, now: float, *, resumed: bool = False) -> None:
        """Record that a rank has completed a step, or has resumed."""
        last = self._last.get(rank)
        self._last[rank] = now
        if resumed or last is None:
            return
        if rank in self._cold:
            self._cold.discard(rank)
        else:
            self._gaps.append(now - last)
        self._verdicts, self._limit_s = 0, 0.0
        self.stragglers.record(rank, busy_s)

    @property
    def limit_s(self) -> float:
        """How long a step may take, in seconds."""
        if len(self._gaps) < KNOWN:
            return max(FIRST_S, self.floor_s)
        if not self._limit_s:
            ordered = sorted(self._gaps)
            p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
            self._limit_s = max(self.floor_s, FACTOR * p99)
        more = FIRST_FACTOR if self._cold else 1.0
        return float(self._limit_s * more * 2 ** min(self._verdicts, MOST_DOUBLINGS))

    def record_verdict(self) -> None:
        """Record a hang verdict: it doubles the limit until the next step."""
        self._verdicts += 1

    def quiet_since(self, now: float) -> float:
        """Time of the last event of the rank that has been silent longest."""
        return min(self._last.values(), default=now)

    def is_late(self, now: float) -> bool:
        """Whether a rank has been silent for longer than the limit."""
        return now - self.quiet_since(now) > self.limit_s

    def straggler(self) -> Straggler | None:
        """The rank that is much slower than the others, if any; call after every step."""
        return self.stragglers.check(ranks=len(self._last))
