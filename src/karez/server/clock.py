"""The one real clock: the time of day, but never in leaps."""

import threading
import time

SLEW = 0.1
"""Share of the time gone by that a correction may take. A step of the system clock by an hour is
made good over ten, and until then every timeout is true to within a tenth."""


def slew(shown: float, elapsed_s: float, wall: float) -> float:
    """What to show `elapsed_s` after `shown`, while the time of day says `wall`."""
    ahead = shown + elapsed_s
    limit_s = SLEW * elapsed_s
    return ahead + max(-limit_s, min(limit_s, wall - ahead))


class SteadyClock:
    """See core.ports.Clock. A host that steps its clock, or was asleep, ends no lease by it."""

    def __init__(self) -> None:
        """Start with the time of day."""
        self._lock = threading.Lock()
        self._looked_at = time.monotonic()  # noqa: TID251 - the one real clock
        self._shown = time.time()  # noqa: TID251 - as above

    def now(self) -> float:
        """UTC epoch seconds."""
        with self._lock:
            at, wall = time.monotonic(), time.time()  # noqa: TID251 - as above
            self._shown = slew(self._shown, at - self._looked_at, wall)
            self._looked_at = at
            return self._shown
