"""A clock that jumps from one event to the next."""

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Timeline:
    at: float = 1_000_000.0
    on_pause: Callable[[], None] = lambda: None
    """What goes on while somebody waits by this clock."""
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def now(self) -> float:
        return self.at

    def pause(self, seconds: float) -> None:
        until = self.at + seconds
        while self.next_at() <= until:
            self.jump_to(self.next_at())
        self.at = until
        self.on_pause()

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.at + seconds, next(self._numbers), act))

    def next_at(self) -> float:
        return self._events[0][0] if self._events else math.inf

    def jump_to(self, at: float) -> None:
        """Go there, and have everything happen that happens until then."""
        while self.next_at() <= at:
            self.at, _, act = heapq.heappop(self._events)
            act()
        self.at = max(self.at, at)
