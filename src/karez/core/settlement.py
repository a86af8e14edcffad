"""Who gave devices to whom between training and serving, and what sharing them saved. Pure.

All of it follows from which workload held which device when, so anyone with the store finds the
same.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
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
    asked_at: float
    """When the workload was submitted."""
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
    """Seconds from when a replica was wanted until it held them; None: a job has them."""
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
    """Device-seconds that `peak` devices of its own would have stood idle."""


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


@dataclass(frozen=True, slots=True)
class _Part:
    """One device of a hold."""

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
        holds: All that overlap with the time, and those that ended up to HANDOVER_S before it;
            what is between OTHERS alone, or theirs, is left out.
        since: UTC epoch seconds.
        until: The same; what is held still is counted up to it.
    """
    by_device: dict[tuple[str, str, int], list[_Part]] = defaultdict(list)
    for hold in holds:
        for node, kind, index, milli in hold.devices:
            by_device[node, kind, index].append(_Part(hold, milli))
    found: dict[_Way, list[tuple[float, float, float]]] = defaultdict(list)
    for (_, kind, _), parts in by_device.items():
        for giver, taker, milli in _passed(parts):
            by, to = giver.hold, taker.hold
            way = _Way(by.project, by.name, to.project, to.name, to.is_service, kind)
            device_s = milli / MILLI * _overlap_s(to, since, until)
            if device_s > 0 and not by.project == to.project == OTHERS:
                idle_s = to.since - (by.until or to.since)
                found[way].append((device_s, idle_s, to.since - to.asked_at))
    rows = [_handover(way, passed) for way, passed in found.items()]
    return Settlement(
        since=since,
        until=until,
        handovers=tuple(sorted(rows, key=lambda row: -row.device_s)),
        services=tuple(_services(holds, since, until)),
        job_device_s=_job_device_s(holds, since, until),
    )


def _passed(parts: Sequence[_Part]) -> Iterable[tuple[_Part, _Part, int]]:
    """Who gave a device to whom: each part of it is given once. A job that ended gave nothing."""
    ended = sorted(
        (part for part in parts if part.hold.until is not None),
        key=lambda part: part.hold.until or 0.0,
    )
    for taker in sorted(parts, key=lambda part: part.hold.since):
        at = taker.hold.since
        givers = [
            part
            for part in ended
            if part.hold.is_service != taker.hold.is_service
            and at - HANDOVER_S <= (part.hold.until or 0.0) <= at
            and (part.hold.is_service or part.hold.ended_at is None or part.hold.ended_at > at)
            and not any(_has_still(other, part, at) for other in parts)
        ]
        if givers:
            giver = givers[-1]
            ended.remove(giver)
            yield giver, taker, min(giver.milli, taker.milli)


def _has_still(one: _Part, before: _Part, at: float) -> bool:
    """Whether a workload that changed its size has kept its part of the device."""
    is_there = one.hold.since <= at and (one.hold.until is None or one.hold.until > at)
    return is_there and one.hold.workload == before.hold.workload and one.milli >= before.milli


def _handover(way: _Way, passed: Sequence[tuple[float, float, float]]) -> Handover:
    device_s, idle_s, waited_s = zip(*passed, strict=True)
    return Handover(
        **way._asdict(),
        times=len(passed),
        device_s=sum(device_s),
        idle_p50_s=median(idle_s),
        idle_max_s=max(idle_s),
        waited_p50_s=median(waited_s) if way.to_service else None,
        waited_max_s=max(waited_s) if way.to_service else None,
    )


def _services(holds: Sequence[Hold], since: float, until: float) -> Iterable[ServiceUse]:
    changes: dict[tuple[str, str, str], list[tuple[float, int]]] = defaultdict(list)
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
        spared_s = max(0.0, peak * (until - since) - device_s)
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
