"""The requests of services, as the gateway reports them; nothing of it is stored."""

import math
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from karez.core.routing import GatewayLoad, ReplicaLoad, ServiceLoad
from karez.scheduling.autoscaling import FRESH_S, Demand, RequestHistory


@dataclass(slots=True)
class ServiceLoads:
    """The newest reports, and the history of each service.

    Each process of the gateway reports once a second; of one that has ended nothing is known soon.
    """

    _reports: dict[int, tuple[float, GatewayLoad]] = field(default_factory=dict)
    """Process of the gateway -> when it reported, and what."""
    _at: float = 0.0
    """When the one reported that was silent for longest."""
    _loads: dict[tuple[str, str], ServiceLoad] = field(default_factory=dict)
    replicas: Mapping[str, ReplicaLoad] = field(default_factory=dict)
    """URL of a replica that the gateway knows -> its requests."""
    _histories: dict[tuple[str, str], RequestHistory] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def record(self, load: GatewayLoad, now: float) -> None:
        """Take a report in; one of a service that is missing says that it has no requests."""
        with self._lock:
            self._reports[load.process] = now, load
            fresh = {key: one for key, one in self._reports.items() if now - one[0] <= FRESH_S}
            self._reports = fresh
            loads = [one for _, one in fresh.values()]
            self._loads = _add_services(loads)
            self.replicas = _add_replicas(loads)
            self._at = min(at for at, _ in fresh.values())
            for name, one in self._loads.items():
                self._histories.setdefault(name, RequestHistory()).record(
                    now,
                    one.inflight,
                    one.slots or math.inf,
                    admitted=one.admitted,
                    begun=one.begun,
                    late=one.late,
                )
            for gone in self._histories.keys() - self._loads.keys():
                del self._histories[gone]

    def demand(self, project: str, service: str, starts_s: float | None = None) -> Demand:
        """What is known of the requests of a service, whose replicas take so long to start."""
        with self._lock:
            history = self._histories.get((project, service))
            if history is None:
                return Demand()
            if starts_s is not None:
                history.starts_s = starts_s
            return history.demand()

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
        text += f"; {load.refused:,} were refused so far" if load.refused else ""
        late = f"; {load.late:,} of {load.begun:,} answers began later than the target so far"
        return text + (late if load.late else "")


def _add_services(loads: Iterable[GatewayLoad]) -> dict[tuple[str, str], ServiceLoad]:
    """The requests of each service at all processes."""
    found: dict[tuple[str, str], ServiceLoad] = {}
    for one in (service for load in loads for service in load.services):
        other = found.get((one.project, one.service))
        found[one.project, one.service] = (
            one
            if other is None
            else replace(
                one,
                inflight=one.inflight + other.inflight,
                slots=max(one.slots, other.slots),
                refused=one.refused + other.refused,
                admitted=one.admitted + other.admitted,
                begun=one.begun + other.begun,
                late=one.late + other.late,
            )
        )
    return found


def _add_replicas(loads: Iterable[GatewayLoad]) -> dict[str, ReplicaLoad]:
    """The requests of each replica from all processes."""
    found: dict[str, ReplicaLoad] = {}
    for one in (replica for load in loads for replica in load.replicas):
        other = found.get(one.url)
        found[one.url] = (
            one
            if other is None
            else replace(
                one,
                inflight=one.inflight + other.inflight,
                answered=one.answered + other.answered,
                failed=one.failed + other.failed,
                answer_s=one.answer_s + other.answer_s,
            )
        )
    return found
