"""Who gave devices to whom between training and serving, and what sharing them saved. Pure.

All of it follows from which workload held which device when, so anyone with the store finds the
same.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from statistics import median
from typing import NamedTuple

from karez.core.units import MILLI

HANDOVER_S = 60.0
"""Longest time between the end of one hold of a device and the next that belongs to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Devices that a workload held for a time."""

    workload: str
    name: str
    """Of the job, or of the service."""
    project: str
    is_service: bool
    devices: tuple[tuple[str, str, int, int], ...]
    """(node, kind, index, thousandths), each."""
    since: float
    """UTC epoch seconds, as all times here."""
    until: float | None
    """None: it holds them still."""
    asked_at: float | None
    """When the workload was submitted; None: it has held devices before."""
    ended_at: float | None
    """When the workload ended; None: it has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """Devices of one kind that went from one workload to another, whole or in parts."""

    from_project: str
    from_name: str
    to_project: str
    to_name: str
    to_service: bool
    """Whether training gave them to a service; else a service left them to a job."""
    kind: str
    times: int
    device_s: float
    """Device-seconds that the receiver has had them."""
    idle_p50_s: float
    """Seconds between the end of the one hold and the beginning of the other."""
    idle_max_s: float
    waited_p50_s: float | None
    """Seconds from when a replica was wanted until it held its first devices; None: no replica
    that was new has them."""
    waited_max_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceUse:
    """What a service held of one kind of devices."""

    project: str
    name: str
    kind: str
    peak: float
    """The most devices at once."""
    device_s: float
    spared_s: float
    """Device-seconds that `peak` devices of its own would have stood idle since its first hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What was shared between training and serving in a time."""

    since: float
    until: float
    handovers: tuple[Handover, ...]
    """Those with the most device-seconds first."""
    services: tuple[ServiceUse, ...]
    job_device_s: dict[str, float] = field(default_factory=dict)
    """Kind of device -> device-seconds that jobs held."""


@dataclass(slots=True)
class _Part:
    """What a hold has of one device, or what is left of it to give once it has ended."""

    hold: Hold
    milli: int


class _Way(NamedTuple):
    """Between whom devices went."""

    from_project: str
    from_name: str
    to_project: str
    to_name: str
    to_service: bool
    kind: str


class _Passed(NamedTuple):
    """One device, or a part of it, that went from one workload to another."""

    device_s: float
    idle_s: float
    waited_s: float | None


OTHERS = ""
"""Project and name of what somebody may not see."""


def seen_by(holds: Sequence[Hold], projects: Sequence[str] | None) -> Sequence[Hold]:
    """The same holds, without the names of projects other than these; None: with all."""
    if projects is None:
        return holds
    return [
        one if one.project in projects else replace(one, project=OTHERS, name=OTHERS)
        for one in holds
    ]


def settle(holds: Sequence[Hold], since: float, until: float) -> Settlement:
    """Settle what was held between two instants.

    Args:
        holds: All that overlap with the time, and those that ended up to HANDOVER_S before one of
            these began; what is between OTHERS alone, or theirs, is left out.
        since: UTC epoch seconds.
        until: The same; what is held still is counted up to it.
    """
    by_device: dict[tuple[str, str, int], list[_Part]] = defaultdict(list)
    for hold in holds:
        for node, kind, index, milli in hold.devices:
            by_device[node, kind, index].append(_Part(hold, milli))
    found: dict[_Way, list[_Passed]] = defaultdict(list)
    for (_, kind, _), parts in by_device.items():
        for giver, taker, milli in _passed(parts, until):
            by, to = giver.hold, taker.hold
            way = _Way(by.project, by.name, to.project, to.name, to.is_service, kind)
            device_s = milli / MILLI * _overlap_s(to, since, until)
            if device_s > 0 and not by.project == to.project == OTHERS:
                waited_s = None if to.asked_at is None else to.since - to.asked_at
                found[way].append(_Passed(device_s, to.since - (by.until or to.since), waited_s))
    rows = [_handover(way, passed) for way, passed in found.items()]
    return Settlement(
        since=since,
        until=until,
        handovers=tuple(sorted(rows, key=lambda row: -row.device_s)),
        services=tuple(_services(holds, since, until)),
        job_device_s=_job_device_s(holds, since, until),
    )


def _passed(parts: Sequence[_Part], until: float) -> Iterator[tuple[_Part, _Part, int]]:
    """Who gave how much of one device to whom, in the order of time.

    What ends is there to be taken for HANDOVER_S, the newest first, and each part of it once: a
    workload that changes its size takes its own again, and what somebody else had in between was
    given by that one. A job that ended gave nothing.
    """
    changes = [(part.hold.since, 1, part) for part in parts if part.hold.since < until]
    changes += [(part.hold.until or 0.0, 0, part) for part in parts if part.hold.until is not None]
    free: list[_Part] = []
    for at, begins, part in sorted(changes, key=lambda one: one[:2]):
        if not begins:
            free.append(_Part(part.hold, part.milli))
            continue
        free = [one for one in free if one.milli and at - (one.hold.until or 0.0) <= HANDOVER_S]
        wanted = part.milli
        own = [one for one in free if one.hold.workload == part.hold.workload]
        for giver in (*(one for one in own if one.hold.until == at), *reversed(free)):
            taken = min(wanted, giver.milli)
            wanted, giver.milli = wanted - taken, giver.milli - taken
            if taken and _gave(giver.hold, part.hold):
                yield giver, part, taken


def _gave(giver: Hold, taker: Hold) -> bool:
    if giver.is_service == taker.is_service:
        return False
    return giver.is_service or giver.ended_at is None or giver.ended_at > taker.since


def _handover(way: _Way, passed: Sequence[_Passed]) -> Handover:
    idle_s = [one.idle_s for one in passed]
    waited_s = [one.waited_s for one in passed if one.waited_s is not None and way.to_service]
    return Handover(
        **way._asdict(),
        times=len(passed),
        device_s=sum(one.device_s for one in passed),
        idle_p50_s=median(idle_s),
        idle_max_s=max(idle_s),
        waited_p50_s=median(waited_s) if waited_s else None,
        waited_max_s=max(waited_s, default=None),
    )


def _services(holds: Sequence[Hold], since: float, until: float) -> Iterable[ServiceUse]:
    changes: dict[tuple[str, str, str], list[tuple[float, int]]] = defaultdict(list)
    """When what is held changed by how many thousandths."""
    used: dict[tuple[str, str, str], float] = defaultdict(float)
    for hold in holds:
        span_s = _overlap_s(hold, since, until)
        if not hold.is_service or span_s <= 0 or hold.project == OTHERS:
            continue
        for _, kind, _, milli in hold.devices:
            own = hold.project, hold.name, kind
            used[own] += milli / MILLI * span_s
            changes[own] += [(max(since, hold.since), milli)]
            changes[own] += [] if hold.until is None else [(hold.until, -milli)]
    for (project, name, kind), steps in sorted(changes.items()):
        ordered = [milli for _, milli in sorted(steps)]  # what ends goes before what begins then
        peak = max(accumulate(ordered)) / MILLI
        device_s = used[project, name, kind]
        spared_s = max(0.0, peak * (until - min(steps)[0]) - device_s)
        yield ServiceUse(
            project=project, name=name, kind=kind, peak=peak, device_s=device_s, spared_s=spared_s
        )


def _job_device_s(holds: Sequence[Hold], since: float, until: float) -> dict[str, float]:
    used: dict[str, float] = defaultdict(float)
    for hold in holds:
        if not hold.is_service and hold.project != OTHERS:
            for _, kind, _, milli in hold.devices:
                used[kind] += milli / MILLI * max(0.0, _overlap_s(hold, since, until))
    return {kind: seconds for kind, seconds in sorted(used.items()) if seconds}


def _overlap_s(hold: Hold, since: float, until: float) -> float:
    end = math.inf if hold.until is None else hold.until
    return min(until, end) - max(since, hold.since)
