"""Amounts of the last minute, of one process of a gateway or of all. Pure.

The minute slides in steps of a tenth of a second: none has more than the limit, and a caller is
refused only where its last minute comes within a step of the limit.
"""

from karez.serving.rows import Cells, Rows

MINUTE_S, STEPS_A_SECOND = 60.0, 10
_STEPS = round(MINUTE_S * STEPS_A_SECOND) + 1
_STEP, _USED, _FIRST = 0, 1, 2
WINDOW_CELLS = _FIRST + _STEPS
"""The newest step, counted since the beginning of time; the sum; and the amount of each step."""


class MinuteWindow:
    """What this process has added in the last minute, beside what the others have."""

    def __init__(self, rows: Rows, first: int) -> None:
        """Use WINDOW_CELLS of the rows, from the cell `first` on."""
        cells = slice(first, first + WINDOW_CELLS)
        self._mine, self._others = rows.mine[cells], [one[cells] for one in rows.others]
        self._seen = [(0, 0, 0, 0)] * len(self._others)
        """Of each other: its step, its sum, at which step that was read, and what was left."""
        self._mine[_USED] = sum(self._mine[_FIRST:])  # a kill may have come between the two

    def advance(self, now: float) -> int:
        """Forget what is older than a minute; returns the step of now."""
        mine, step = self._mine, int(now * STEPS_A_SECOND)
        newest = mine[_STEP]
        for old in range(newest + 1, min(step, newest + _STEPS) + 1):
            place = _FIRST + old % _STEPS
            if amount := mine[place]:  # it goes before the sum does: who reads sees no less
                mine[place] = 0
                mine[_USED] -= amount
        if step > newest:
            mine[_STEP] = step
        return max(step, newest)

    def used(self, now: float) -> int:
        """What all have added in the last minute."""
        step = self.advance(now)
        if not self._others:
            return self._mine[_USED]
        return self._mine[_USED] + sum(self._used_by(at, step) for at in range(len(self._others)))

    def _used_by(self, at: int, step: int) -> int:
        """What another has in the last minute: it may not have been asked for a while."""
        cells = self._others[at]
        newest, used = cells[_STEP], cells[_USED]
        if newest >= step:
            return used
        if step - newest >= _STEPS:
            return 0
        seen = self._seen[at]
        if seen[:3] == (newest, used, step):
            return seen[3]
        left = used - sum(cells[_FIRST + old % _STEPS] for old in range(newest + 1, step + 1))
        self._seen[at] = (newest, used, step, left)
        return left

    def add(self, amount: int, now: float) -> None:
        """Add an amount now."""
        step = self.advance(now)
        self._mine[_USED] += amount
        self._mine[_FIRST + step % _STEPS] += amount

    def wait_s(self, over: int, now: float) -> float:
        """Seconds until so much of what was used is older than a minute."""
        step = self.advance(now)
        for old in range(step - _STEPS + 1, step + 1):
            over -= sum(_amount(cells, old) for cells in (self._mine, *self._others))
            if over <= 0:
                return max(0.0, (old + _STEPS) / STEPS_A_SECOND - now)
        return MINUTE_S


def _amount(cells: Cells, step: int) -> int:
    """What was added in a step; one that is not in the cells has nothing."""
    return cells[_FIRST + step % _STEPS] if cells[_STEP] - _STEPS < step <= cells[_STEP] else 0
