"""The requests of services, as the gateway reports them; nothing of it is stored."""

import math
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from karez.core.routing import GatewayLoad, ReplicaLoad, ServiceLoad
from karez.scheduling.autoscaling import FRESH_S, Demand, RequestHistory


class Counts(NamedTuple):
    """Of the requests of a service."""

    admitted: int = 0
    begun: int = 0
    late: int = 0


NO_COUNTS = Counts()


def _grown(total: int, now: int, before: int) -> int:
    return total + max(0, now - before)


@dataclass(slots=True)
class ServiceLoads:
    """The newest reports, and the history of each service.

    Each process of the gateway reports once a second. One that is silent has what it had: it is
    started anew, or goes on without word to control.
    """

    processes: int = 1
    """Of the gateway."""
    _reports: dict[int, GatewayLoad] = field(default_factory=dict)
    """Process of the gateway -> what it reported last, however long ago: what it has goes on."""
    _told_at: dict[int, float] = field(default_factory=dict)
    _counted: dict[tuple[int, str, str], Counts] = field(default_factory=dict)
    """(process, project, service) -> the counts that it told last."""
    _totals: dict[tuple[str, str], Counts] = field(default_factory=dict)
    """(project, service) -> counts since this was made, which never fall."""
    _loads: dict[tuple[str, str], ServiceLoad] = field(default_factory=dict)
    replicas: Mapping[str, ReplicaLoad] = field(default_factory=dict)
    """URL of a replica that the gateway knows -> its requests."""
    _histories: dict[tuple[str, str], RequestHistory] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def record(self, load: GatewayLoad, now: float) -> None:
        """Take a report in; one of a service that is missing says that it has no requests."""
        with self._lock:
            self._count(load)
            self._reports[load.process], self._told_at[load.process] = load, now
            self._loads = _add_services(self._reports.values())
            self.replicas = _add_replicas(self._reports.values())
            fresh = [one for one, at in self._told_at.items() if now - at <= FRESH_S]
            if load.process != min(fresh) and not self.awaits():
                return  # the histories take a sample a second
            for name, one in self._loads.items():
                counts = self._totals.get(name, NO_COUNTS)
                self._histories.setdefault(name, RequestHistory()).record(
                    now, one.inflight, one.slots or math.inf, **counts._asdict()
                )
            for gone in self._histories.keys() - self._loads.keys():
                del self._histories[gone]
                self._totals.pop(gone, None)
                self._counted = {key: one for key, one in self._counted.items() if key[1:] != gone}

    def _count(self, load: GatewayLoad) -> None:
        """Add up what a process counts: what it counted before its first report is not new."""
        for one in load.services:
            name, now = (one.project, one.service), Counts(one.admitted, one.begun, one.late)
            key = load.process, *name
            before = self._counted.get(key, now)
            if now.admitted < before.admitted:  # it was started anew
                before = NO_COUNTS
            sums = self._totals.get(name, NO_COUNTS)
            self._totals[name] = Counts(*map(_grown, sums, now, before))
            self._counted[key] = now

    @property
    def _at(self) -> float:
        """When the one reported that was silent for longest; 0: one has not yet."""
        return min(self._told_at.get(number, 0.0) for number in range(self.processes))

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
