"""How often controllers have failed, and what follows: a pause that grows, then the end."""

from dataclasses import dataclass, field

from karez.core.errors import StorageFull, Unreachable
from karez.core.workloads import WorkloadId

PAUSES_S = (0.0, 1.0, 4.0, 16.0)
"""Pauses after the failures of a row: the first may well be the last."""
LIMIT = len(PAUSES_S) + 1
"""Failures in a row after which a workload ends: one that stays would hold its devices for ever."""
OF_OTHERS = (Unreachable, StorageFull, OSError)
"""Failures that say nothing of the workload: such a row has no end."""
OTHERS_PAUSE_S = 1.0
FORGET_S = 600.0
"""A controller that ran for so long since the failure before has begun a new row."""
WHY_CHARACTERS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerFailure:
    """The newest failure of a workload's controller."""

    count: int
    """Failures in a row."""
    is_of_others: bool
    """Whether what control needs had failed, and not the controller."""
    at: float
    why: str

    @property
    def is_final(self) -> bool:
        """Whether the workload has to end."""
        return self.count >= LIMIT and not self.is_of_others

    @property
    def resumes_at(self) -> float:
        """When the next controller may begin."""
        return self.at + (OTHERS_PAUSE_S if self.is_of_others else PAUSES_S[self.count - 1])

    @property
    def reason(self) -> str:
        """What its workload ends with."""
        return f"its controller failed {self.count} times in a row, the last time with {self.why}"


@dataclass(slots=True)
class FailedControllers:
    """Failures of the controllers of this process, by workload."""

    _newest: dict[WorkloadId, ControllerFailure] = field(default_factory=dict)

    def note(self, ident: WorkloadId, error: Exception, now: float) -> None:
        """Note one more failure."""
        before = self._newest.get(ident)
        is_in_row = before is not None and now - before.at < FORGET_S
        own = before.count if before is not None and is_in_row else 0
        self._newest[ident] = ControllerFailure(
            count=max(1, own) if isinstance(error, OF_OTHERS) else own + 1,
            at=now,
            is_of_others=isinstance(error, OF_OTHERS),
            why=f"{type(error).__name__}: {error}"[:WHY_CHARACTERS],
        )

    def newest(self, ident: WorkloadId) -> ControllerFailure | None:
        """The newest failure of a workload's controllers."""
        return self._newest.get(ident)

    def recent(self, now: float) -> int:
        """How many workloads have a controller that failed within the last while."""
        return sum(now - failure.at < FORGET_S for failure in list(self._newest.values()))

    def forget(self, ident: WorkloadId) -> None:
        """Forget a workload that has ended."""
        self._newest.pop(ident, None)
