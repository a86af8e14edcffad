"""The record of one recovery: what was noticed, decided and restored, and what it cost."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """One recovery of one job. Instants are UTC epoch seconds of the control's host."""

    id: str
    job: str
    generation: int
    cause: str
    ranks: tuple[int, ...]
    rung: str
    source: str
    """Where the lost state came from: `shm`, `peer`, `storage` or `start`."""
    detected_at: float
    decided_at: float
    restored_at: float
    resumed_at: float
    step_before: int
    """Highest step any rank had committed when the fault was noticed."""
    step_restored: int
    epoch: int = 0

    @property
    def steps_lost(self) -> int:
        """Committed steps that had to be done again."""
        return max(0, self.step_before - self.step_restored)

    @property
    def recovery_s(self) -> float:
        """From the detection to the first step complete on all ranks."""
        return self.resumed_at - self.detected_at
