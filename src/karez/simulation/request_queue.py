"""Load that waits for replicas, first come first served, until callers lose patience."""

from collections import deque
from dataclasses import dataclass, field

SERVED = 1e-9
"""Load that is less than this is none."""


@dataclass(slots=True)
class RequestQueue:
    """Load as answers at once times seconds, by when it came."""

    patience_s: float
    waiting: float = 0.0
    unserved: float = 0.0
    served: float = 0.0
    _queue: deque[tuple[float, float]] = field(default_factory=deque)
    _waits: dict[float, float] = field(default_factory=dict)
    """Seconds -> load that waited so long."""

    def serve(self, at: float, load: float, capacity: float) -> float:
        """Add the load of a tick, and serve what capacity there is; returns what was served."""
        while self._queue and at - self._queue[0][0] > self.patience_s:
            self.unserved += self._queue[0][1]
            self.waiting -= self._queue.popleft()[1]
        if not self._queue and load <= capacity:  # nothing waits
            self._waits[0.0] = self._waits.get(0.0, 0.0) + load
            self.served += load
            return load
        self._queue.append((at, load))
        self.waiting += load
        left = capacity
        while self._queue and left > SERVED:
            came, there = self._queue.popleft()
            taken = min(left, there)
            left -= taken
            self._waits[at - came] = self._waits.get(at - came, 0.0) + taken
            if there - taken > SERVED:
                self._queue.appendleft((came, there - taken))
        done = capacity - left
        self.waiting = max(0.0, self.waiting - done) if self._queue else 0.0
        self.served += done
        return done

    @property
    def unserved_pct(self) -> float:
        """Load that lost patience, in percent of all that was served or lost."""
        return 100 * self.unserved / ((self.served + self.unserved) or 1.0)

    def waited(self, part: float) -> float:
        """Seconds that this part of the served load waited at most."""
        rest = part * self.served
        for seconds in sorted(self._waits):
            rest -= self._waits[seconds]
            if rest <= SERVED:
                return seconds
        return max(self._waits, default=0.0)
