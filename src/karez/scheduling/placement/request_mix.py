"""Mix of typical requests, against which fragmentation is measured.

Source of the measure: Q. Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads
with Fragmentation Gradient Descent", USENIX ATC 2023: the share of a node's free accelerators
that a worker drawn from the mix could not use.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import numpy as np

from karez.core.units import MILLI
from karez.scheduling.placement.inventory import BULK, CPU, Ints, Shape

PPM: Final = 1_000_000
"""Weights are integers, so that their sum does not depend on the order."""
POPULAR: Final = 0.95
"""Share of all requests that the mix covers: the rare rest would only cost time. As in the
paper's artifact."""


class RequestMix(NamedTuple):
    """T typical shapes and their frequency, as columns."""

    devices: Ints
    milli: Ints
    models: Ints
    cpu: Ints
    weight: Ints
    """(T,) parts per million; they add up to PPM or a few less."""
    per_device: Ints
    """(B,) average amount of each bulk resource that is requested with a whole device; 0: none."""


def request_mix(shapes: Iterable[Shape]) -> RequestMix:
    """Build the mix from the most frequent shapes of some requests, up to POPULAR of them.

    Without requests, the mix is 1, 2, 4 and 8 whole devices.
    """
    requests = list(shapes) or [Shape(devices=count) for count in (1, 2, 4, 8)]
    counts: Counter[tuple[int, int, int, int]] = Counter(
        (s.devices, s.milli if s.devices else 0, s.models, s.bulk[CPU]) for s in requests
    )
    chosen: list[tuple[tuple[int, int, int, int], int]] = []
    covered = 0
    for key, count in counts.most_common():
        if covered >= POPULAR * len(requests):
            break
        chosen.append((key, count))
        covered += count
    table: Any = np.array([key for key, _ in chosen], np.int64).reshape(-1, 4)
    weight = np.array([count * PPM // covered for _, count in chosen], np.int64)
    return RequestMix(
        devices=table[:, 0].copy(),
        milli=table[:, 1].copy(),
        models=table[:, 2].copy(),
        cpu=table[:, 3].copy(),
        weight=weight,
        per_device=_per_device(requests),
    )


def _per_device(requests: list[Shape]) -> Ints:
    asked = sum(shape.device_milli for shape in requests)
    with_devices = [shape.bulk for shape in requests if shape.devices]
    totals = [sum(bulk[index] for bulk in with_devices) for index in range(len(BULK))]
    return np.array([total * MILLI // asked if asked else 0 for total in totals], np.int64)
