"""Mix of typical requests, against which fragmentation is measured.

Source of the measure: Q. Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads
with Fragmentation Gradient Descent", USENIX ATC 2023: the share of a node's free accelerators
that a worker drawn from the mix could not use.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from karez.core.units import MILLI
from karez.scheduling.placement.inventory import BULK, CPU, Ints, Shape, Supply

PPM: Final = 1_000_000
"""Weights are integers, so that their sum does not depend on the order."""
POPULAR: Final = 0.95
"""Share of all requests that the mix covers: the rare rest would only cost time. As in the
paper's artifact."""
MODELS: Final = 64
"""Bits of a set of models."""
WHOLE: Final = tuple(Shape(devices=count) for count in (1, 2, 4, 8))
"""What a pool expects of which nothing is known."""


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
    scarcity: Ints
    """(64,) how much more demand comes for a device of each model than for one of the model that
    is asked for least, in parts per million of a device, PPM at most."""


def request_mix(
    shapes: Iterable[Shape] | Mapping[Shape, int], supply: Supply | None = None
) -> RequestMix:
    """Build the mix from the most frequent shapes of some requests, up to POPULAR of them.

    Args:
        shapes: The requests one by one, or how many ask for each shape. None at all: WHOLE.
        supply: What the pool has. Without it no model counts as scarce, and nor does any other
            resource.
    """
    requests = Counter(shapes) or Counter(WHOLE)
    counts: Counter[tuple[int, int, int, int]] = Counter()
    for s, number in requests.items():
        counts[s.devices, s.milli if s.devices else 0, s.models, s.bulk[CPU]] += number
    chosen: list[tuple[tuple[int, int, int, int], int]] = []
    covered = 0
    for key, count in counts.most_common():
        if covered >= POPULAR * requests.total():
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
        per_device=_per_device(requests, supply),
        scarcity=_scarcity(requests, supply),
    )


def _per_device(requests: Counter[Shape], supply: Supply | None) -> Ints:
    """What a free device needs beside it to be of use.

    That is what workers with devices ask for. Where a resource would run out before the devices
    do, what workers without devices ask for counts, too: they take it from those with.
    """
    asked = sum(shape.device_milli * number for shape, number in requests.items())
    result = np.zeros(len(BULK), np.int64)
    for index in range(len(BULK)) if asked else ():
        amounts = [(shape, shape.bulk[index] * number) for shape, number in requests.items()]
        everyone = sum(amount for _, amount in amounts)
        total = sum(amount for shape, amount in amounts if shape.devices)
        if supply is not None and everyone * sum(supply.milli) > supply.bulk[index] * asked:
            total = everyone
        result[index] = total * MILLI // asked
    return result


def _scarcity(requests: Counter[Shape], supply: Supply | None) -> Ints:
    """Spread each request over the devices that it may have, and compare what each model gets."""
    scarcity = np.zeros(MODELS, np.int64)
    asked: Counter[int] = Counter()
    for shape, number in requests.items():
        asked[shape.models] += shape.device_milli * number
    total = asked.total()
    if supply is None or not total:
        return scarcity
    demand = dict.fromkeys((m for m, milli in enumerate(supply.milli) if milli), 0)
    for allowed, milli in asked.items():
        fitting = [model for model in demand if allowed >> model & 1]
        room = sum(supply.milli[model] for model in fitting)
        for model in fitting:
            demand[model] += milli * sum(supply.milli) * PPM // (total * room)
    for model, each in demand.items():
        scarcity[model] = min(PPM, each - min(demand.values()))
    return scarcity
