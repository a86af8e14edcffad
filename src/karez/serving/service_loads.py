"""The requests of services, as the gateway reports them; nothing of it is stored."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from karez.core.routing import GatewayLoad, ReplicaLoad, ServiceLoad
from karez.serving.autoscaling import FRESH_S, LONG_S, Demand, Sample


@dataclass(slots=True)
class _Watched:
    """What was heard of a service."""

    busy_at: float
    samples: tuple[Sample, ...] = ()


@dataclass(slots=True)
class ServiceLoads:
    """The newest report, and the samples of the last minute. The gateway reports once a second."""

    _at: float = 0.0
    _loads: dict[tuple[str, str], ServiceLoad] = field(default_factory=dict)
    replicas: Mapping[str, ReplicaLoad] = field(default_factory=dict)
    """URL of a replica that the gateway knows -> its requests."""
    _watched: dict[tuple[str, str], _Watched] = field(default_factory=dict)

    def record(self, load: GatewayLoad, now: float) -> None:
        """Take a report in; one of a service that is missing says that it has no requests."""
        self._loads = {(one.project, one.service): one for one in load.services}
        self.replicas = {one.url: one for one in load.replicas}
        self._at = now
        for name, one in self._loads.items():
            watched = self._watched.setdefault(name, _Watched(busy_at=now))
            if one.inflight:
                watched.busy_at = now
            kept = (sample for sample in watched.samples if sample.at >= now - LONG_S)
            watched.samples = (*kept, Sample(now, one.inflight))
        for gone in self._watched.keys() - self._loads.keys():
            del self._watched[gone]

    def demand(self, project: str, service: str) -> Demand:
        """What is known of the requests of a service."""
        watched = self._watched.get((project, service))
        if watched is None:
            return Demand()
        return Demand(samples=watched.samples, busy_at=watched.busy_at)

    def inflight(self, url: str, since: float) -> int | None:
        """Requests that may go to a replica, or are with it; None: nothing was said since."""
        if self._at <= since:
            return None
        known = self.replicas.get(url)
        return 0 if known is None else max(1, known.inflight)

    def awaits(self) -> bool:
        """Whether requests wait for a service that has no replica."""
        return any(one.inflight and not one.slots for one in self._loads.values())

    def describe(self, project: str, service: str, now: float) -> str:
        """What is in flight for a service, for people; empty if nobody knows."""
        load = self._loads.get((project, service))
        if load is None or now - self._at > FRESH_S:
            return ""
        running = min(load.inflight, load.slots)
        waiting = load.inflight - running
        text = f"{running} of {load.slots} requests at once are answered, {waiting} wait"
        return text + (f"; {load.refused:,} were refused so far" if load.refused else "")
