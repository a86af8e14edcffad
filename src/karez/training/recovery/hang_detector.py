"""Who holds a gang up: what silence means, from when on it counts, and who is slower. Pure.

Nothing is judged by one fixed limit. A step is late once it takes several times as long as nearly
all before it; then the processes are looked at, twice, before anybody is called hung.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean, median, pstdev

from karez.core.processes import ProcessSample
from karez.training.recovery.events import Hung

FACTOR = 5.0
"""A step is late after so many times the 99th percentile of those before it."""
FIRST_S = 60.0
"""Limit for a step before enough are known: compilers and caches make the first ones long."""
KNOWN = 5
"""Steps that make a limit."""
PATIENCE = 4.0
"""A rank that computes, and does use the processor, may be late so many times longer."""
BUSY = 0.05
"""Share of the time between two looks that a rank must have computed to count as busy; one that
waits for a processor counts as well, for a host may have fewer of these than work."""
FIRST_FACTOR = 3.0
"""The first step of a generation may take so many times longer: caches are cold."""
MOST_DOUBLINGS = 6
DATA_S = 600.0
"""How long a rank may wait for its data before that counts as a hang."""
SAMPLES, SIGMAS, SLOWER, IN_A_ROW = 20, 3.0, 0.3, 3
"""A straggler: over so many steps, so many deviations and so much slower than the others, so often
in a row. Defaults of the sub-health rules in the design notes on resilience."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Straggler:
    """A rank that is much slower than the others."""

    rank: int
    factor: float
    """Its own time for a step, by the median of the others'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled:
    """Ranks wait for their data: nobody hangs, and nothing would be won by a restart."""

    ranks: tuple[int, ...]
    for_s: float


@dataclass(slots=True, kw_only=True)
class HangDetector:
    """What one gang's steps taught so far."""

    floor_s: float = 5.0
    _gaps: deque[float] = field(default_factory=lambda: deque(maxlen=500))
    _last: dict[int, float] = field(default_factory=dict)
    """Rank -> when it was last heard of in this generation."""
    _busy: dict[int, deque[float]] = field(default_factory=dict)
    _slow: dict[int, int] = field(default_factory=dict)
    _looked: int = 0
    _called: int = 0
    """Verdicts since a step was last heard of: each doubles the limit, lest a wrong one repeat."""
    _cold: set[int] = field(default_factory=set)
    """Ranks that have not completed a step of this generation."""
    _limit_s: float = 0.0

    def begin(self, ranks: Iterable[int], now: float) -> None:
        """A generation begins."""
        self._last = dict.fromkeys(ranks, now)
        self._cold = set(self._last)

    def record_event(self, rank: int, busy_s: float, now: float, *, resumed: bool = False) -> None:
        """A rank has completed a step, or is back."""
        last = self._last.get(rank)
        self._last[rank] = now
        if resumed or last is None:
            return
        if rank in self._cold:
            self._cold.discard(rank)
        else:
            self._gaps.append(now - last)
        self._called, self._limit_s = 0, 0.0
        self._busy.setdefault(rank, deque(maxlen=SAMPLES)).append(busy_s)

    @property
    def limit_s(self) -> float:
        """How long a step may take."""
        if len(self._gaps) < KNOWN:
            return max(FIRST_S, self.floor_s)
        if not self._limit_s:
            ordered = sorted(self._gaps)
            p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
            self._limit_s = max(self.floor_s, FACTOR * p99)
        more = FIRST_FACTOR if self._cold else 1.0
        return float(self._limit_s * more * 2 ** min(self._called, MOST_DOUBLINGS))

    def record_verdict(self) -> None:
        """Somebody was called hung, and is ended for it."""
        self._called += 1

    @property
    def step_s(self) -> float:
        """The median step; 0 if none is known."""
        return median(self._gaps) if self._gaps else 0.0

    def quiet_since(self, now: float) -> float:
        """Since when somebody has not been heard of."""
        return min(self._last.values(), default=now)

    def late_since(self, now: float) -> float | None:
        """The same, once that is too long."""
        oldest = self.quiet_since(now)
        return oldest if now - oldest > self.limit_s else None

    def straggler(self) -> Straggler | None:
        """Who is slower than the others by all four measures; asked after every step."""
        self._looked += 1
        full = {rank: list(times) for rank, times in self._busy.items() if len(times) == SAMPLES}
        if self._looked % (SAMPLES * max(1, len(self._last))) or len(full) < 2:
            return None
        found = None
        for rank, times in full.items():
            others = [t for other, own in full.items() if other != rank for t in own]
            usual, spread = median(others), pstdev(others)
            mean = fmean(times)
            is_slow = mean > usual * (1 + SLOWER) and mean > usual + SIGMAS * spread
            self._slow[rank] = self._slow.get(rank, 0) + 1 if is_slow else 0
            if self._slow[rank] == IN_A_ROW:
                found = Straggler(rank=rank, factor=mean / usual if usual else 0.0)
        return found


def find_stopped(looks: Mapping[int, ProcessSample], since: float) -> Hung | None:
    """Ranks whose process does not run at all: one look proves it."""
    stopped = tuple(rank for rank, look in looks.items() if look.state == "stopped")
    if not stopped:
        return None
    named = ", ".join(map(str, stopped))
    return Hung(ranks=stopped, why=f"rank {named} was stopped", since=since, code="frozen")


def diagnose(
    first: Mapping[int, ProcessSample],
    second: Mapping[int, ProcessSample],
    *,
    apart_s: float,
    late_s: float,
    limit_s: float,
    since: float,
) -> Hung | Stalled | None:
    """Who holds the gang up, after two looks; None: it seems to get on, or is only busy.

    Args:
        first: Rank -> how its process looked.
        second: The same, `apart_s` later.
        apart_s: Seconds between the looks.
        late_s: How long nobody was heard of.
        limit_s: From when on that was too long.
        since: When the last was heard of, for the receipt.
    """
    if (stopped := find_stopped(second, since)) is not None:
        return stopped
    moved = any(second[rank].step != look.step for rank, look in first.items() if rank in second)
    if moved or not second:
        return None
    front = max(look.step for look in second.values())
    behind = {
        rank: look
        for rank, look in second.items()
        if look.activity in ("loading", "computing")
        or (look.activity == "meeting" and look.step < front)
    }
    if not behind:
        if all(look.activity == "meeting" for look in second.values()):
            why = "no rank left the collective"
            return Hung(ranks=(), why=why, since=since)
        return None
    loading = tuple(rank for rank, look in behind.items() if look.activity == "loading")
    if len(loading) == len(behind) and late_s < DATA_S:
        return Stalled(ranks=loading, for_s=late_s)
    hung = tuple(
        rank
        for rank, look in behind.items()
        if late_s > PATIENCE * limit_s or not _is_busy(first.get(rank), look, apart_s)
    )
    hung = tuple(rank for rank in hung if rank not in loading or late_s >= DATA_S)
    if not hung:
        return None
    named = ", ".join(map(str, hung))
    return Hung(ranks=hung, why=f"rank {named} did not come to the collective", since=since)


def _is_busy(before: ProcessSample | None, now: ProcessSample, apart_s: float) -> bool:
    if before is None:
        return True
    return now.state == "running" or now.cpu_s - before.cpu_s > BUSY * apart_s
