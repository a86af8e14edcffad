"""The real clock: the time of day, slewed and never stepped."""

import threading
import time

from typing_extensions import override

from karez.core.ports import Clock

SLEW = 0.1
"""Largest correction, as a share of elapsed time. A step of the system clock by an hour is
corrected over ten hours; until then every timeout is true to within a tenth."""


def slew(shown: float, elapsed_s: float, wall: float) -> float:
    """The time to show `elapsed_s` after `shown`, while the time of day is `wall`."""
    ahead = shown + elapsed_s
    limit_s, off_s = SLEW * elapsed_s, wall - ahead
    if off_s > limit_s:
        return ahead + limit_s
    return ahead - limit_s if off_s < -limit_s else wall


class SteadyClock(Clock):
    """A clock that ends no lease because its host stepped its clock or was asleep."""

    def __init__(self) -> None:
        """Start at the time of day."""
        self._lock = threading.Lock()
        self._read_at = time.monotonic()  # noqa: TID251 - the one real clock
        self._shown = time.time()  # noqa: TID251 - the one real clock

    @override
    def now(self) -> float:
        with self._lock:
            at, wall = time.monotonic(), time.time()  # noqa: TID251 - the one real clock
            self._shown = slew(self._shown, at - self._read_at, wall)
            self._read_at = at
            return self._shown

    @override
    def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: TID251 - the one real clock
