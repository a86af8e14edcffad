"""karez.scheduling.scores in numba: the same integers, a hundred times as fast.

Each shape keeps its score per node; only nodes that changed since are scored again, and the best
is found over the maxima of blocks of nodes (equivalence classes and score caching, after A. Verma
et al., "Large-scale cluster management at Google with Borg", EuroSys 2015, section 3.4).
"""

from typing import Final

import numba
import numpy as np

from karez.core.units import MILLI
from karez.scheduling.inventory import CPU, HEAD, MEMORY, Arrays, Ints
from karez.scheduling.mix import PPM, Mix
from karez.scheduling.scores import (
    CPU_SHARE,
    NEVER,
    NODE_SHARE,
    SIGMOID_STEPS,
    STEP,
    TIE_BITS,
    Policy,
)

BLOCK: Final = 128
_BEST_FIT, _FGD, _KAREZ = int(Policy.BEST_FIT), int(Policy.FGD), int(Policy.KAREZ)


@numba.njit(cache=True)
def refresh(
    arrays: Arrays, shape: Ints, mix: Mix, policy: int, known: tuple[Ints, Ints, Ints], rows: Ints
) -> int:
    """Score these nodes again; the best of all nodes, or -1.

    `known` is (N,) scores, (N,) slots and the maxima of blocks, and is brought up to date.
    """
    points, slots, tops = known
    last = -1
    for row in rows:
        points[row], slots[row] = score_one(arrays, row, shape, mix, policy)
        block = row // BLOCK
        if block != last and last >= 0:
            tops[last] = _top(points, last)
        last = block
    if last >= 0:
        tops[last] = _top(points, last)
    best = int(np.argmax(tops))
    if tops[best] == NEVER:
        return -1
    for row in range(best * BLOCK, min(len(points), (best + 1) * BLOCK)):
        if points[row] == tops[best]:
            return row
    return -1


@numba.njit(cache=True)
def _top(points: Ints, block: int) -> int:
    best = NEVER
    for row in range(block * BLOCK, min(len(points), (block + 1) * BLOCK)):
        best = max(best, points[row])
    return best


@numba.njit(cache=True)
def score_one(arrays: Arrays, row: int, shape: Ints, mix: Mix, policy: int) -> tuple[int, int]:
    """Score and slot of one node: see karez.scheduling.scores.score."""
    if not _fits(arrays, row, shape):
        return NEVER, 0
    if policy == _BEST_FIT:
        return _best_fit(arrays, row, shape)
    points, slot = _gradient(arrays, row, shape, mix, policy)
    if policy == _KAREZ and arrays.busy[arrays.domain[row]] == 0:
        points -= 1 << TIE_BITS
    return points, slot


@numba.njit(cache=True)
def _takes(arrays: Arrays, row: int, slot: int, shape: Ints) -> bool:
    left = arrays.free[row, slot]
    return left > 0 and left >= shape[1] and (shape[2] >> arrays.model[row, slot]) & 1 == 1


@numba.njit(cache=True)
def _fits(arrays: Arrays, row: int, shape: Ints) -> bool:
    for index in range(arrays.bulk.shape[1]):
        if arrays.bulk[row, index] < shape[HEAD + index]:
            return False
    missing = shape[0]
    if missing:
        for slot in range(arrays.free.shape[1]):
            if _takes(arrays, row, slot, shape):
                missing -= 1
    return missing <= 0


@numba.njit(cache=True)
def _best_fit(arrays: Arrays, row: int, shape: Ints) -> tuple[int, int]:
    total, tightest, chosen = 0, 1 << 40, 0
    for slot in range(arrays.free.shape[1]):
        left = arrays.free[row, slot]
        total += left
        if left < tightest and _takes(arrays, row, slot, shape):
            tightest, chosen = left, slot
    cpu_left = arrays.bulk[row, CPU] - shape[HEAD + CPU]
    devices_left = total - shape[0] * shape[1]
    return -(cpu_left * NODE_SHARE + devices_left * CPU_SHARE), chosen


@numba.njit(cache=True)
def _gradient(arrays: Arrays, row: int, shape: Ints, mix: Mix, policy: int) -> tuple[int, int]:
    free = arrays.free[row]
    cpu = arrays.bulk[row, CPU]
    after = cpu - shape[HEAD + CPU]
    total = free.sum()
    counts = np.zeros(len(mix.weight), np.int64)
    lows = np.zeros(len(mix.weight), np.int64)
    before = _fragmentation(free, arrays.model[row], cpu, mix, counts, lows)
    if shape[0] != 1 or shape[1] == MILLI:
        left, missing = free.copy(), shape[0]
        for slot in range(len(free)):
            if missing > 0 and _takes(arrays, row, slot, shape):
                left[slot] -= shape[1]
                missing -= 1
        now = _fragmentation(left, arrays.model[row], after, mix, counts, lows)
        asked = shape[0] * shape[1]
        return _points(arrays, row, shape, mix, policy, before - now, total - asked, 0), 0
    best, chosen = NEVER, 0
    for slot in range(len(free)):
        if not _takes(arrays, row, slot, shape) or _seen_before(arrays, row, slot):
            continue
        now = _without(arrays, row, slot, shape[1], after, mix, counts, lows)
        points = _points(
            arrays, row, shape, mix, policy, before - now, total - shape[1], free[slot] - shape[1]
        )
        if points > best:
            best, chosen = points, slot
    return best, chosen


@numba.njit(cache=True)
def _seen_before(arrays: Arrays, row: int, slot: int) -> bool:
    """Whether an earlier slot is just like this one: its score would be the same."""
    for other in range(slot):
        same = arrays.free[row, other] == arrays.free[row, slot]
        if same and arrays.model[row, other] == arrays.model[row, slot]:
            return True
    return False


@numba.njit(cache=True)
def _fragmentation(free: Ints, model: Ints, cpu: int, mix: Mix, counts: Ints, lows: Ints) -> int:
    """Also leaves, for each typical shape, how many devices will do and what the others hold."""
    total = free.sum()
    result = 0
    for index in range(len(mix.weight)):
        milli, low, count = mix.milli[index], 0, 0
        for slot in range(len(free)):
            if free[slot] >= milli and (mix.models[index] >> model[slot]) & 1 == 1:
                count += 1
            else:
                low += free[slot]
        counts[index], lows[index] = count, low
        hosts = mix.devices[index] > 0 and count >= mix.devices[index] and cpu >= mix.cpu[index]
        result += mix.weight[index] * (low if hosts else total)
    return result


@numba.njit(cache=True)
def _without(
    arrays: Arrays, row: int, slot: int, milli: int, cpu: int, mix: Mix, counts: Ints, lows: Ints
) -> int:
    """Fragmentation once `milli` of one slot is gone, from what is known of all slots."""
    was = arrays.free[row, slot]
    left = was - milli
    total = arrays.free[row].sum() - milli
    result = 0
    for index in range(len(mix.weight)):
        low, count = lows[index], counts[index]
        right = (mix.models[index] >> arrays.model[row, slot]) & 1 == 1
        if right and was >= mix.milli[index]:
            if left < mix.milli[index]:
                count -= 1
                low += left
        else:
            low -= milli
        hosts = mix.devices[index] > 0 and count >= mix.devices[index] and cpu >= mix.cpu[index]
        result += mix.weight[index] * (low if hosts else total)
    return result


@numba.njit(cache=True)
def _points(
    arrays: Arrays, row: int, shape: Ints, mix: Mix, policy: int, gain: int, left: int,
    slot_left: int,
) -> int:  # fmt: skip
    if policy == _FGD:
        return int(np.searchsorted(SIGMOID_STEPS, gain, side="right"))
    total = left + shape[0] * shape[1]
    for index in (CPU, MEMORY):
        if mix.per_device[index] > 0:
            has = arrays.bulk[row, index]
            served = has * MILLI // mix.per_device[index]
            will = (has - shape[HEAD + index]) * MILLI // mix.per_device[index]
            gain += PPM * (max(0, total - served) - max(0, left - will))
    cpu_left = arrays.bulk[row, CPU] - shape[HEAD + CPU]
    tightness = slot_left + left // NODE_SHARE + cpu_left // CPU_SHARE
    return (2 * (gain // STEP) << TIE_BITS) - tightness
