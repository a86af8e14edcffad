"""Projects that have spent what they may spend in a month. Pure."""

from collections.abc import Iterable

from karez.core.identity import Project
from karez.core.prices import NANO
from karez.core.stores.usage import UsageStore


def over_budget(usage: UsageStore, projects: Iterable[Project], now: float) -> dict[str, str]:
    """Say of each project that may spend no more this month what can be done about it.

    Args:
        usage: Knows what they have spent; it is not asked where no project has a limit.
        projects: With their limits.
        now: UTC epoch seconds.
    """
    limits = {
        project.name: project.limits.spend_nano
        for project in projects
        if project.limits.spend_nano is not None
    }
    spent = usage.spend(now) if limits else {}
    return {
        name: f"project {name} has spent its {limit / NANO:.6g} for this month; "
        f"`karez projects limits {name} --spend` raises that"
        for name, limit in limits.items()
        if spent.get(name, 0) >= limit
    }
