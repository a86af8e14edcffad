"""Which projects may spend no more, looked up every few seconds: what they hold costs more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from karez.core.budgets import over_budget
from karez.core.identity import Project
from karez.core.stores.usage import UsageStore

BUDGETS_S = 5.0
"""Seconds between two looks while no project changes: by so much a project may overspend."""


@dataclass(slots=True)
class BudgetWatch:
    """Looks at what projects have spent, and remembers it for a short while."""

    usage: UsageStore
    _looked_at: float = float("-inf")
    _projects: Sequence[Project] = ()
    _over: Mapping[str, str] = field(default_factory=dict)

    def over(self, projects: Sequence[Project], now: float) -> Mapping[str, str]:
        """Projects that may spend no more this month, and why."""
        if projects != self._projects or not 0 <= now - self._looked_at < BUDGETS_S:
            self._projects, self._looked_at = projects, now
            self._over = over_budget(self.usage, projects, now)
        return self._over
