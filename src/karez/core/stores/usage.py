"""Protocol of the store of calls, usage and the audit log."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from karez.core.device_prices import DevicePrice
from karez.core.grants import Grant
from karez.core.ledger import LedgerLine
from karez.core.prices import Price
from karez.core.settlement import Hold
from karez.core.usage import AuditRow, Call, MinuteUsage, UsageRow


class UsageStore(Protocol):
    """Calls, usage and the audit log."""

    def add_calls(self, calls: Sequence[Call]) -> None:
        """Record gateway calls, each with a line in its project's ledger at the price of now.

        One recorded before is left as it is.
        """
        ...

    def ledger(self, project: str, *, after: int, limit: int) -> Sequence[LedgerLine]:
        """List lines of a project's ledger, those after a number, in order."""
        ...

    def minutes(
        self, *, projects: Sequence[str] | None, since: float, until: float, limit: int
    ) -> Sequence[MinuteUsage]:
        """Sum up calls by minute, project, key and service, oldest first; None: all projects."""
        ...

    def holds(self, *, since: float, until: float, limit: int) -> Sequence[Hold]:
        """List what workloads held between two instants, and what ended shortly before.

        That is up to a minute before one of these holds began; `limit` at most.
        """
        ...

    def spend(self, now: float) -> Mapping[str, int]:
        """What each project has spent in the month of an instant (UTC), in billionths.

        That is its calls and the devices that it has held in that month, until the instant.
        """
        ...

    def bill_devices(self, now: float) -> None:
        """Write lines for devices: those given back, and up to the last full hour those held."""
        ...

    def device_prices(self) -> Sequence[DevicePrice]:
        """List the prices of devices."""
        ...

    def put_device_price(self, price: DevicePrice, *, now: float) -> None:
        """Store a price, in place of one of that device, for what is held from now on."""
        ...

    def drop_device_price(self, device: str, *, now: float) -> bool:
        """Remove a price; what was held until now is billed by it. False: there is none."""
        ...

    def prices(self) -> Sequence[Price]:
        """List the prices of models."""
        ...

    def put_price(self, price: Price) -> None:
        """Store a price, in place of one of that model."""
        ...

    def drop_price(self, model: str) -> bool:
        """Remove a price. False: there is none."""
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
