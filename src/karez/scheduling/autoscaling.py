"""How many replicas a service needs, by the requests that it has and by how fast they rose. Pure.

Room is left for as many requests more as came in the time that a replica takes to start, at four of
five moments of the last half hour; at more of them, if requests have had to wait. `karez simulate
colocate` runs these very functions.
"""

import math
from bisect import insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from karez.core.services import ServiceSpec

BUSY: Final = 0.95
"""Part of a replica's answers at once that it is meant to give."""
MEAN_S: Final = 5.0
"""Seconds over which requests are averaged."""
CALM_S: Final = 60.0
"""How long fewer replicas must have been enough before one ends."""
STEP: Final = 0.1
"""Least change, as a part of the replicas: each costs whoever has the devices a pause."""
FRESH_S: Final = 10.0
"""How long a sample counts where nothing newer is known."""
KEPT_S: Final = MEAN_S + CALM_S
RISES_S: Final = 1800.0
"""How long a rise of requests is remembered."""
LATE: Final = 1.05
"""Requests as a part of those answered at once, from which on they count as waiting."""
QUANTILES: Final = ((0.005, 0.8), (0.02, 0.9), (0.05, 0.97), (1.0, 1.0))
"""Part of the time in which requests waited, up to which this quantile of the rises is enough."""
FEWEST_RISES, FEWEST_TO_JUDGE = 60, 600
UNKNOWN_RISE: Final = 0.3
"""Rise that is expected, as a part of the requests, while nothing is known."""
LATE_PART, EARLY_PART = 0.05, 0.02
"""Part of the answers that may begin later than a service's target, and one that is well below."""
LEAST_PART: Final = 0.25
"""Least part of a replica's answers at once that a target may leave it."""
FEWEST_ANSWERS, ANSWERS_S = 20, 30.0
"""Answers by which a target is judged, and over how long."""
EASE, TIGHTEN, JUDGE_S = 0.85, 1.05, 60.0
"""By which factor the part changes, and how long after a change it may grow again."""
STARTS_S: Final = 10.0
"""Seconds that a replica takes to start where none has started yet."""


class Sample(NamedTuple):
    """The requests of a service at an instant."""

    at: float
    """UTC epoch seconds."""
    inflight: float
    """Requests that are answered or wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is known of the requests of a service."""

    samples: Sequence[Sample] = ()
    """The newest ones, oldest first."""
    busy_at: float = 0.0
    """When it last had a request, or was first watched."""
    rise: float | None = None
    """By how many requests it rises while a replica starts; None: nobody knows."""
    part: float = 1.0
    """Part of what a replica may answer at once, with which answers begin in time."""


@dataclass(slots=True)
class FirstTokens:
    """Whether answers begin in time, and how busy replicas may be for that."""

    part: float = 1.0
    _told: tuple[int, int] = (0, 0)
    _answers: deque[tuple[float, int, int]] = field(default_factory=deque)
    """(instant, answers, late ones) since the last change, of the last ANSWERS_S."""
    _changed_at: float | None = None
    """When it changed, or was watched first."""

    def record(self, at: float, begun: int, late: int, starts_s: float) -> None:
        """Take in how many answers have begun so far, and how many of them late.

        What is late while a replica starts says nothing of how many there should be.
        """
        before, self._told = self._told, (begun, late)
        if self._changed_at is None:
            self._changed_at = at
        answers = self._answers
        answers.append((at, begun - before[0], max(0, late - before[1])))
        while answers[0][0] < at - ANSWERS_S:
            answers.popleft()
        count, late_ones = sum(one[1] for one in answers), sum(one[2] for one in answers)
        if count < FEWEST_ANSWERS:
            return
        since_s = at - self._changed_at
        if late_ones > LATE_PART * count and since_s >= starts_s + MEAN_S:
            self._change(max(LEAST_PART, self.part * EASE), at)
        elif late_ones < EARLY_PART * count and since_s >= max(JUDGE_S, starts_s + MEAN_S):
            self._change(min(1.0, self.part * TIGHTEN), at)

    def _change(self, part: float, at: float) -> None:
        if part != self.part:
            self.part, self._changed_at = part, at
            self._answers.clear()


@dataclass(slots=True)
class RequestHistory:
    """The requests of one service over time: samples, about one a second."""

    starts_s: float = STARTS_S
    """Seconds that a replica takes to start."""
    busy_at: float = 0.0
    _samples: deque[Sample] = field(default_factory=deque)
    _rises: deque[tuple[float, float, bool]] = field(default_factory=deque)
    """(instant, rise until then, whether requests waited)."""
    _admitted: int = 0
    _late: int = 0
    """How many of them waited."""
    _sorted: list[float] = field(default_factory=list)
    """The rises, the smallest first."""
    _target: FirstTokens = field(default_factory=FirstTokens)

    def record(
        self,
        at: float,
        inflight: float,
        slots: float = math.inf,
        *,
        admitted: int = 0,
        begun: int = 0,
        late: int = 0,
    ) -> None:
        """Take in a sample, newer than all before.

        Args:
            at: UTC epoch seconds.
            inflight: Requests.
            slots: Those of them that are answered at once.
            admitted: Requests that have come so far: most are over between two samples.
            begun: Answers that have begun so far; it never falls.
            late: Those of them that began later than the target.
        """
        self._target.record(at, begun, late, self.starts_s)
        if inflight or not self._samples or admitted != self._admitted:
            self.busy_at = at
        self._admitted = admitted
        self._samples.append(Sample(at, inflight))
        before = [one for one in self._samples if one.at <= at - self.starts_s]
        if before:
            rise = max(0.0, inflight - before[-1].inflight)
            is_late = inflight > slots * LATE
            self._rises.append((at, rise, is_late))
            insort(self._sorted, rise)
            self._late += is_late
        while self._rises and self._rises[0][0] < at - RISES_S:
            _, rise, was_late = self._rises.popleft()
            self._sorted.remove(rise)
            self._late -= was_late
        keep_s = max(KEPT_S, self.starts_s + FRESH_S)
        while self._samples[0].at < at - keep_s:
            self._samples.popleft()

    def demand(self) -> Demand:
        """What is known now."""
        known, rise = len(self._sorted), None
        if known >= FEWEST_RISES:
            late = self._late / max(known, FEWEST_TO_JUDGE)
            quantile = next(one for most, one in QUANTILES if late <= most)
            rise = self._sorted[min(known - 1, int(quantile * known))]
        return Demand(
            samples=tuple(self._samples), busy_at=self.busy_at, rise=rise, part=self._target.part
        )


def wanted_replicas(spec: ServiceSpec, demand: Demand, *, current: int, now: float) -> int:
    """Replicas that a service should have, of which `current` are there or on their way.

    Where the gateway tells nothing, as many as there are.
    """
    least, most = spec.bounds_at(now)
    samples = [one for one in demand.samples if now - KEPT_S <= one.at]
    if not samples or now - samples[-1].at > FRESH_S:
        return min(max(current, least), most)
    inflight = samples[-1].inflight
    is_idle = not inflight and (not current or now - demand.busy_at >= spec.idle_s)
    if is_idle and not least:
        return 0
    waiting = max(0.0, inflight - current * spec.parallel)
    mean = _mean(samples, now)
    rise = UNKNOWN_RISE * mean if demand.rise is None else demand.rise
    soon = _replicas_for(mean + rise + waiting, spec, demand.part)
    wanted = current
    if soon > current and (waiting or soon - current > STEP * current):
        wanted = soon
    elif soon < current and now - samples[0].at >= CALM_S:
        calm = [one for one in samples if one.at >= now - CALM_S]
        highest = max(_mean(samples, one.at) for one in calm[:: max(1, len(calm) // 10)])
        enough = max(1, _replicas_for(max(mean, highest) + rise, spec, demand.part))
        wanted = enough if current - enough > STEP * current else current
    if inflight:
        wanted = max(wanted, 1)
    return min(max(wanted, least), most)


def _mean(samples: Sequence[Sample], end: float) -> float:
    """Mean of the requests in the few seconds before an instant."""
    last = [one.inflight for one in samples if end - MEAN_S < one.at <= end]
    return sum(last) / len(last) if last else 0.0


def _replicas_for(inflight: float, spec: ServiceSpec, part: float) -> int:
    return math.ceil(inflight / (spec.parallel * BUSY * part) - 1e-9)
