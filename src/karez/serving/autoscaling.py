"""How many replicas a service needs, by the requests that it has. Pure.

Up at once by the last seconds, down by the busiest of the last minute: as Knative's autoscaler,
which counts requests at once too (its `container-concurrency-target-percentage` is 70; its windows
are 6 s and 60 s). All replicas end once there was no request for as long as the service says.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from karez.core.services import ServiceSpec

BUSY: Final = 0.7
"""Part of a replica's answers at once that it is meant to give."""
SHORT_S: Final = 6.0
LONG_S: Final = 60.0
FRESH_S: Final = 10.0
"""How long a sample counts where nothing newer is known."""


class Sample(NamedTuple):
    """The requests of a service at an instant."""

    at: float
    """UTC epoch seconds."""
    inflight: int
    """Requests that are answered or wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is known of the requests of a service."""

    samples: Sequence[Sample] = ()
    """Those of the last minute, oldest first."""
    busy_at: float = 0.0
    """When it last had a request, or was first watched."""


def wanted_replicas(spec: ServiceSpec, demand: Demand, *, current: int, now: float) -> int:
    """Replicas that a service should have, of which `current` are there or on their way.

    Where the gateway tells nothing, as many as there are.
    """
    samples = [one for one in demand.samples if now - LONG_S <= one.at]
    if not samples or now - samples[-1].at > FRESH_S:
        return min(max(current, spec.least), spec.most)
    soon = _replicas_for(_mean(samples, now), spec)
    if samples[-1].inflight:
        soon = max(soon, 1)
    wanted = soon
    if soon < current and (soon or now - demand.busy_at < spec.idle_s):
        highest = max(_mean(samples[: end + 1], samples[end].at) for end in range(len(samples)))
        is_watched = now - samples[0].at >= LONG_S - FRESH_S
        wanted = min(current, max(1, _replicas_for(highest, spec))) if is_watched else current
    return min(max(wanted, spec.least), spec.most)


def _mean(samples: Sequence[Sample], end: float) -> float:
    """Mean of the requests in the few seconds before an instant."""
    last = [one.inflight for one in samples if one.at > end - SHORT_S]
    return sum(last) / len(last) if last else 0.0


def _replicas_for(inflight: float, spec: ServiceSpec) -> int:
    return math.ceil(inflight / (spec.parallel * BUSY))
