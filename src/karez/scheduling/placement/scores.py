"""Scores of nodes for a shape: integers, so that every machine decides the same.

NumPy form; scores_numba computes the same in numba. Higher is better, and the first of equals
wins. Shapes: K nodes scored, D accelerator slots, T typical shapes.
"""

import math
from enum import IntEnum
from typing import Any, Final

import numpy as np

from karez.core.units import MILLI
from karez.scheduling.placement.inventory import CPU, HEAD, Arrays, Ints
from karez.scheduling.placement.request_mix import PPM, RequestMix

NEVER: Final = -(1 << 62)
"""The score of a node that cannot take the shape."""
STEP: Final = 25 * PPM
"""Differences of fragmentation below 25 thousandths of a device count as none, so that packing
decides. Measured on openb: 10 packs worse, 40 and 100 no better (docs/scheduling.md)."""
TIE_BITS: Final = 30
"""Low bits of a score that hold the packing score, below the fragmentation score."""
CPU_SHARE: Final = 128
"""A free core counts 1000 / 128 against a free device's 1000 / 8: the largest node of openb has
128 cores and 8 devices."""
NODE_SHARE: Final = 8
"""Devices of the largest node of openb; see CPU_SHARE."""
BLOCK: Final = 64
"""Nodes per block; the best node is found over the maxima of blocks."""


class Policy(IntEnum):
    """Ways to score nodes."""

    BEST_FIT = 0
    FGD = 1
    KAREZ = 2


def sigmoid_steps() -> Ints:
    """(99,) fragmentation gradients at which FGD's published score goes up by one.

    The artifact scores int(100 * sigmoid(gradient / 1000)), gradient in thousandths of a device;
    step k is where that reaches k.

    Source: the artifact of Q. Weng et al., USENIX ATC 2023.
    """
    edges = (MILLI * math.log(k / (100 - k)) for k in range(1, 100))
    return np.array([math.ceil(edge * PPM) for edge in edges], np.int64)


SIGMOID_STEPS: Final = sigmoid_steps()


def score(
    arrays: Arrays, rows: Ints, shape: Ints, mix: RequestMix, policy: Policy
) -> tuple[Ints, Ints]:
    """Score some nodes for a shape, and choose the slot for a fraction there.

    Args:
        arrays: The inventory.
        rows: (K,) node numbers.
        shape: row_of(shape).
        mix: Typical requests.
        policy: How to score.

    Returns:
        (K,) scores and (K,) slots; NEVER where the shape does not fit.
    """
    free, bulk = arrays.free[rows], arrays.bulk[rows]
    count, milli = int(shape[0]), int(shape[1])
    takes = ((shape[2] >> arrays.model[rows]) & 1 == 1) & (free >= milli) & (free > 0)
    fits = (bulk >= shape[HEAD:]).all(1)
    if count:
        fits &= takes.sum(1) >= count
    if policy == Policy.BEST_FIT:
        points, slot = _best_fit(free, bulk, shape, takes)
    else:
        points, slot = _gradient(arrays, rows, shape, takes, mix, policy)
    return np.where(fits, points, NEVER), np.where(fits, slot, 0)


def _best_fit(free: Ints, bulk: Ints, shape: Ints, takes: Any) -> tuple[Ints, Ints]:
    cpu_left = bulk[:, CPU] - shape[HEAD + CPU]
    devices_left = free.sum(1) - shape[0] * shape[1]
    slot = np.where(takes, free, 1 << 40).argmin(1)
    return -(cpu_left * NODE_SHARE + devices_left * CPU_SHARE), slot


def _gradient(
    arrays: Arrays, rows: Ints, shape: Ints, takes: Any, mix: RequestMix, policy: Policy
) -> tuple[Ints, Ints]:
    free, model, bulk = arrays.free[rows], arrays.model[rows], arrays.bulk[rows]
    after = bulk - shape[HEAD:]
    count, milli = int(shape[0]), int(shape[1])
    before = fragmentation(free, model, bulk[:, CPU], mix)
    if count == 1 and milli < MILLI:
        best = np.full(len(rows), NEVER, np.int64)
        slot = np.zeros(len(rows), np.int64)
        for index in range(free.shape[1]):
            left = free.copy()
            left[:, index] -= milli
            gain = before - fragmentation(left, model, after[:, CPU], mix)
            if policy == Policy.KAREZ:
                gain -= taken_scarcity(free, left, model, mix)
            points = _points(gain, free, left, bulk, after, left[:, index], mix, policy)
            better = takes[:, index] & (points > best)
            best[better], slot[better] = points[better], index
    else:
        left, slot = free.copy(), np.zeros(len(rows), np.int64)
        if count:
            left[takes & (takes.cumsum(1) <= count)] -= milli
        gain = before - fragmentation(left, model, after[:, CPU], mix)
        if policy == Policy.KAREZ:
            gain -= taken_scarcity(free, left, model, mix)
        best = _points(gain, free, left, bulk, after, np.zeros_like(gain), mix, policy)
    if policy == Policy.KAREZ:
        domain = arrays.domain[rows]
        opens = arrays.busy[domain] == 0
        best = best - np.where(opens, 1 << TIE_BITS, 0)
    return best, slot


def _points(
    gain: Ints,
    free: Ints,
    left: Ints,
    bulk: Ints,
    after: Ints,
    slot_left: Ints,
    mix: RequestMix,
    policy: Policy,
) -> Ints:
    """(K,) scores of one slot: steps of fragmentation first, then how tightly it packs."""
    if policy == Policy.FGD:
        steps: Ints = np.searchsorted(SIGMOID_STEPS, gain, side="right").astype(np.int64)
        return steps
    total, total_left = free.sum(1), left.sum(1)
    gain = gain + PPM * (stranded(total, bulk, mix) - stranded(total_left, after, mix))
    tightness: Ints = slot_left + total_left // NODE_SHARE + after[:, CPU] // CPU_SHARE
    return (2 * (gain // STEP) << TIE_BITS) - tightness


def fragmentation(free: Ints, model: Ints, cpu: Ints, mix: RequestMix) -> Ints:
    """(K,) free thousandths that a worker drawn from the mix could not use, times PPM.

    A worker without devices can use none of them. Memory does not count, as in the published
    measure.
    """
    total = free.sum(1)
    result = np.zeros(len(free), np.int64)
    for index in range(len(mix.weight)):
        count, milli = int(mix.devices[index]), int(mix.milli[index])
        wasted = total
        if count:
            usable = (free >= milli) & ((mix.models[index] >> model) & 1 == 1)
            hosts = (usable.sum(1) >= count) & (cpu >= mix.cpu[index])
            wasted = np.where(hosts, np.where(usable, 0, free).sum(1), total)
        result += mix.weight[index] * wasted
    return result


def stranded(total: Ints, bulk: Ints, mix: RequestMix) -> Ints:
    """(K,) free thousandths of devices for which another resource would run out first.

    These are the free devices beyond what the free CPU serves at the mix's average ratio, and the
    same for memory, network cards and storage.
    """
    result = np.zeros(len(total), np.int64)
    for index in range(bulk.shape[1]):
        if mix.per_device[index]:
            served = bulk[:, index] * MILLI // mix.per_device[index]
            result += np.maximum(0, total - served)
    return result


def taken_scarcity(free: Ints, left: Ints, model: Ints, mix: RequestMix) -> Ints:
    """(K,) demand that no longer finds a device of its model, in thousandths times PPM."""
    scarce: Ints = ((free - left) * mix.scarcity[model]).sum(1)
    return scarce
