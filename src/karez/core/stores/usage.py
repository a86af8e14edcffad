"""Protocol of the store of calls, usage and the audit log."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from karez.core.grants import Grant
from karez.core.usage import AuditRow, Call, UsageRow


class UsageStore(Protocol):
    """Calls, usage and the audit log."""

    def add_calls(self, calls: Sequence[Call]) -> None:
        """Record gateway calls; one recorded before is left as it is."""
        ...

    def summary(self, *, projects: Sequence[str] | None, now: float) -> Sequence[UsageRow]:
        """Sum up tokens per service and device-seconds per workload."""
        ...

    def held(self, since: float) -> Sequence[tuple[str, tuple[Grant, ...], float, float | None]]:
        """List the grants held after an instant: (project, grants, from, until)."""
        ...

    def auditing(self, row: Callable[[], AuditRow | None]) -> AbstractContextManager[None]:
        """Write the row of one request: with its first change, and its outcome at the end.

        `row` says what is known of the request by then; None: it needs no row. The store sets `id`.
        """
        ...

    def audit(self, *, limit: int = 100) -> Sequence[AuditRow]:
        """List the audit log, newest first."""
        ...
