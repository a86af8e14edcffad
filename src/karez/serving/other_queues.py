"""The queues that a gateway's other processes have for the same service. Pure."""

import math

from karez.core.call_limits import CALL_CLASSES, CallClass
from karez.serving.rows import HELD, Rows

RUNNING, CALLERS = 0, 4
_WAITING = {one: number for number, one in enumerate(CALL_CLASSES, 1)}
QUEUE_CELLS = HELD
"""Requests that run; those of each class that wait; callers that have any."""


class OtherQueues:
    """What the others have, and what they are told of this process."""

    def __init__(self, rows: Rows) -> None:
        """Use the cells of a service."""
        self._mine, self._others = rows.mine, rows.others

    def __bool__(self) -> bool:
        """Whether there are others."""
        return bool(self._others)

    def tell(self, running: int, waiting: dict[CallClass, int], callers: int) -> None:
        """Tell them what this process has."""
        if self._others:
            cells = self._mine
            cells[RUNNING], cells[CALLERS] = running, callers
            for priority, count in waiting.items():
                cells[_WAITING[priority]] = count

    @property
    def running(self) -> int:
        """Requests that they have sent to replicas."""
        return sum(cells[RUNNING] for cells in self._others)

    def waiting(self, priority: CallClass) -> int:
        """Requests of a class that wait there."""
        place = _WAITING[priority]
        return sum(cells[place] for cells in self._others)

    def leave_room(self, running: int, most: int, priority: CallClass, callers: int) -> bool:
        """Whether a request of a class may be sent, where as many as `most` run at once.

        Where requests wait elsewhere too, those of an earlier class go first, and of the same
        class each process sends its share, by the callers that it has.

        Args:
            running: Requests that this process has sent.
            most: Of all processes together.
            priority: The class.
            callers: Who have requests in this process.
        """
        if running + self.running >= most:
            return False
        before = CALL_CLASSES[: CALL_CLASSES.index(priority)]
        if any(self.waiting(one) for one in before):
            return False
        if not self.waiting(priority):
            return True
        everybody = callers + sum(cells[CALLERS] for cells in self._others)
        return running < math.ceil(most * callers / max(1, everybody))
