"""The spare nodes of a simulated fleet."""

import heapq
from dataclasses import dataclass, field


@dataclass(slots=True)
class SparePool:
    """The nodes beside the gang: warm spares, and nodes under repair."""

    spares: int
    back_at: list[float] = field(default_factory=list)

    def take(self, wanted: int, now: float) -> bool:
        """Take spare nodes; returns False, and takes none, if there are too few by now."""
        self._settle(now)
        if self.spares < wanted:
            return False
        self.spares -= wanted
        return True

    def wait(self, wanted: int, now: float) -> float:
        """When enough spares will be ready."""
        self._settle(now)
        missing = wanted - self.spares
        ready = sorted(self.back_at)[: max(0, missing)]
        return max([now, *ready])

    def mend(self, at: float) -> None:
        """Return a broken node as a spare at an instant."""
        heapq.heappush(self.back_at, at)

    def _settle(self, now: float) -> None:
        while self.back_at and self.back_at[0] <= now:
            heapq.heappop(self.back_at)
            self.spares += 1
