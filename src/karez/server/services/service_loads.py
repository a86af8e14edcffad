"""The requests of services, as the gateway reports them; nothing of it is stored."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from karez.core.routing import ServiceLoad

FRESH_S = 10.0
"""How long a report counts: the gateway reports once a second."""


@dataclass(slots=True)
class ServiceLoads:
    """The newest report."""

    _at: float = 0.0
    _loads: dict[tuple[str, str], ServiceLoad] = field(default_factory=dict)

    def record(self, loads: Sequence[ServiceLoad], now: float) -> None:
        """Take a report in."""
        self._loads = {(load.project, load.service): load for load in loads}
        self._at = now

    def describe(self, project: str, service: str, now: float) -> str:
        """What is in flight for a service, for people; empty if nobody knows."""
        load = self._loads.get((project, service))
        if load is None or now - self._at > FRESH_S:
            return ""
        running = min(load.inflight, load.slots)
        waiting = load.inflight - running
        text = f"{running} of {load.slots} requests at once are answered, {waiting} wait"
        return text + (f"; {load.refused:,} were refused so far" if load.refused else "")
