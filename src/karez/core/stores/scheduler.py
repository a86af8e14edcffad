"""Protocol of the store of the scheduler's own state."""

from typing import Protocol


class SchedulerStore(Protocol):
    """What the scheduler of one control leaves for that of the next."""

    def pending_decisions(self) -> str:
        """Return the decisions that are not carried out yet, as JSON; empty: there are none."""
        ...

    def save_pending_decisions(self, text: str) -> None:
        """Replace the decisions that are not carried out yet."""
        ...
