"""How often a rank writes a snapshot: at every step, or every few steps where steps are short."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

SHARE, LONG_SHARE, ALLOWANCE_S = 0.01, 0.03, 0.0005
"""What snapshots may cost per step: a share of it, and so many seconds. The share is larger for
steps of a second and more, which are dearer to lose."""
MOST_S, MOST_STEPS = 10.0, 100
"""At most so many seconds of training, and so many steps, may have to be done again."""
_WEIGHT = 0.2
"""Weight of the newest measurement in a running mean."""


@dataclass(slots=True, kw_only=True)
class SnapshotCadence:
    """Decides, together with the other ranks, after which steps there is a snapshot.

    All ranks must write snapshots of the same steps: each sends what would suit it with its
    gradients, and all take the largest.
    """

    fixed: int = 0
    """Steps between two snapshots as the user wants it; 0: by what they cost."""
    every: int = 1
    """Steps between two snapshots, as the ranks agreed."""
    newest: int = 0
    """The step of the newest snapshot of this schedule."""
    count: int = 0
    """Snapshots since the last start from a restored step."""
    _step_s: float = 0.0
    _snapshot_s: float = 0.0

    def __post_init__(self) -> None:
        self.every = self.fixed or 1

    @property
    def wanted(self) -> int:
        """Steps between two snapshots that suit this rank."""
        if self.fixed or not self._step_s or not self._snapshot_s:
            return self.fixed or 1
        needed = math.ceil(self._snapshot_s / budget_s(self._step_s))
        return max(1, min(needed, MOST_STEPS, int(MOST_S / self._step_s)))

    def agree(self, wanted: Iterable[int]) -> None:
        """Take the largest of what suits the ranks."""
        self.every = self.fixed or max(wanted)

    def restart(self, step: int) -> None:
        """Begin again from a restored step, of which all ranks have a snapshot."""
        self.newest, self.count, self.every = step, 0, self.fixed or 1

    def is_due(self, step: int) -> bool:
        """Whether a snapshot of a completed step is due; then it counts as the newest."""
        if step - self.newest < self.every:
            return False
        self.newest = step
        self.count += 1
        return True

    def took(self, step_s: float, snapshot_s: float) -> None:
        """Note how long a step took, and how long its snapshot computed; 0: not measured."""
        self._step_s = _mean(self._step_s, step_s)
        self._snapshot_s = _mean(self._snapshot_s, snapshot_s)


def budget_s(step_s: float) -> float:
    """Return the seconds that snapshots may cost in each step of so many seconds."""
    share = SHARE + (LONG_SHARE - SHARE) * min(1.0, step_s)
    return share * step_s + ALLOWANCE_S


def _mean(before: float, now: float) -> float:
    if not now:
        return before
    return now if not before else before + _WEIGHT * (now - before)
