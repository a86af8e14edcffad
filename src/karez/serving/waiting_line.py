"""Requests that wait for a slot: by class, and in each class the callers take turns. Pure."""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from karez.core.call_limits import CALL_CLASSES, CallClass

Item = TypeVar("Item")


@dataclass(slots=True)
class WaitingLine(Generic[Item]):
    """What waits, by its class and its caller.

    Within a class each caller that waits is served one request at a time, in turn, so that one who
    sends many keeps nobody else waiting for all of them.
    """

    _lines: dict[CallClass, OrderedDict[str, deque[Item]]] = field(
        default_factory=lambda: {one: OrderedDict() for one in CALL_CLASSES}
    )
    _counts: dict[CallClass, int] = field(default_factory=lambda: dict.fromkeys(CALL_CLASSES, 0))
    total: int = 0

    def count(self, priority: CallClass) -> int:
        """How many of a class wait."""
        return self._counts[priority]

    def add(self, item: Item, priority: CallClass, caller: str) -> None:
        """Put a caller's request at its end."""
        self._lines[priority].setdefault(caller, deque()).append(item)
        self._counts[priority] += 1
        self.total += 1

    def pop(self, priority: CallClass) -> Item | None:
        """Take out the request of a class whose turn it is; None: none waits."""
        line = self._lines[priority]
        if not line:
            return None
        caller = next(iter(line))
        item = line[caller].popleft()
        line.move_to_end(caller)
        self._took(priority, caller)
        return item

    def remove(self, item: Item, priority: CallClass, caller: str) -> bool:
        """Take out a request; returns whether it waited."""
        try:
            self._lines[priority][caller].remove(item)
        except (LookupError, ValueError):
            return False
        self._took(priority, caller)
        return True

    def _took(self, priority: CallClass, caller: str) -> None:
        line = self._lines[priority]
        if not line[caller]:
            del line[caller]
        self._counts[priority] -= 1
        self.total -= 1
