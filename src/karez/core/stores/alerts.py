"""Protocol of the store of alerts."""

from collections.abc import Sequence
from typing import Protocol

from karez.core.alerts import Alert, Delivery, StoredRule


class AlertStore(Protocol):
    """Rules, and the alerts that were told or are on their way."""

    def put_rule(self, rule: StoredRule) -> None:
        """Store a rule, in place of the one of the same project and name."""
        ...

    def drop_rule(self, project: str, name: str) -> bool:
        """Remove a rule; what is on its way by it is not sent. False: there is none."""
        ...

    def rules(self, projects: Sequence[str] | None = None) -> Sequence[StoredRule]:
        """List the rules of some projects, or of all, by project and name."""
        ...

    def add(self, alerts: Sequence[Alert]) -> int:
        """Record alerts to be sent; one that is known stays as it is. Returns how many are new."""
        ...

    def due(self, now: float, *, limit: int) -> Sequence[Delivery]:
        """List alerts whose next attempt is due, oldest first."""
        ...

    def record(self, delivery: Delivery) -> None:
        """Record the outcome of an attempt."""
        ...

    def deliveries(self, project: str, rule: str, *, limit: int = 100) -> Sequence[Delivery]:
        """List the alerts of a rule, newest first."""
        ...
