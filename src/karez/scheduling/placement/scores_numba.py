"""Scores of nodes in numba: the same integers as `scores`, a hundred times as fast.

Each shape keeps its score per node; only nodes that changed since are scored again, and the best
is found over the maxima of blocks of nodes (equivalence classes and score caching, after A. Verma
et al., "Large-scale cluster management at Google with Borg", EuroSys 2015, section 3.4).

Arrays are separate arguments: reading them from a tuple inside a loop counts references each
time, which made a row ten times as slow. All kernels share this file because numba's cache of a
caller does not notice a change of a callee in another file.
"""

import numba
import numpy as np

from karez.core.units import MILLI
from karez.scheduling.placement.inventory import ANY_MODEL, CPU, HEAD, Arrays, Ints
from karez.scheduling.placement.request_mix import PPM, RequestMix
from karez.scheduling.placement.scores import (
    BLOCK,
    CPU_SHARE,
    NEVER,
    NODE_SHARE,
    SIGMOID_STEPS,
    STEP,
    TIE_BITS,
    Policy,
)

_BEST_FIT, _FGD, _KAREZ = int(Policy.BEST_FIT), int(Policy.FGD), int(Policy.KAREZ)


@numba.njit(cache=True)
def refresh(
    arrays: Arrays,
    shape: Ints,
    mix: RequestMix,
    policy: int,
    known: tuple[Ints, Ints, Ints],
    rows: Ints,
    stamps: Ints,
    stamp: int,
) -> int:
    """Score these nodes, and return the best of all nodes, or -1.

    `known` is (N,) scores, (N,) slots and the maxima of blocks, and is updated. A row may occur
    twice: rows that are done have `stamp` in `stamps`.
    """
    free, model, bulk, domain, busy, most, whole, total = arrays
    devices, milli, models, cpu, weight, per_device, scarcity = mix
    points, slots, tops = known
    stale = np.zeros(len(tops), np.bool_)
    counts = np.zeros(len(weight), np.int64)
    lows = np.zeros(len(weight), np.int64)
    asked, each = shape[0], shape[1]
    for row in rows:
        if stamps[row] == stamp:
            continue
        stamps[row] = stamp
        before, now, slot = points[row], NEVER, 0
        fits = asked == 0 or (most[row] >= each and (each < MILLI or whole[row] >= asked))
        for index in range(bulk.shape[1]):  # spelled out: a call would count references
            fits = fits and bulk[row, index] >= shape[HEAD + index]
        if fits and asked > 0 and (shape[2] != ANY_MODEL or (asked > 1 and each < MILLI)):
            fits = _has_slots(free, model, row, shape)
        if fits:
            if policy == _BEST_FIT:
                cpu_left = bulk[row, CPU] - shape[HEAD + CPU]
                devices_left = total[row] - shape[0] * shape[1]
                now = -(cpu_left * NODE_SHARE + devices_left * CPU_SHARE)
            else:
                now, slot = _gradient(
                    free,
                    model,
                    bulk,
                    row,
                    shape,
                    policy,
                    devices,
                    milli,
                    models,
                    cpu,
                    weight,
                    per_device,
                    scarcity,
                    counts,
                    lows,
                )
                if policy == _KAREZ and busy[domain[row]] == 0:
                    now -= 1 << TIE_BITS
        points[row], slots[row] = now, slot
        block = row // BLOCK
        if now >= tops[block]:
            tops[block] = now
            stale[block] = False
        elif before == tops[block]:
            stale[block] = True
    best = _best_of(points, tops, stale)
    if policy == _BEST_FIT and best >= 0:
        slots[best] = _tightest(free, model, best, shape)
    return best


@numba.njit(cache=True)
def _best_of(points: Ints, tops: Ints, stale: Ints) -> int:
    """Recompute stale maxima of blocks, and return the first of the best rows."""
    for block in range(len(tops)):
        if stale[block]:
            best = NEVER
            for row in range(block * BLOCK, min(len(points), (block + 1) * BLOCK)):
                best = max(best, points[row])
            tops[block] = best
    top = int(np.argmax(tops))
    if tops[top] == NEVER:
        return -1
    for row in range(top * BLOCK, min(len(points), (top + 1) * BLOCK)):
        if points[row] == tops[top]:
            return row
    return -1


@numba.njit(cache=True, inline="always")
def _takes(left: int, kind: int, shape: Ints) -> bool:
    return left > 0 and left >= shape[1] and (shape[2] >> kind) & 1 == 1


@numba.njit(cache=True)
def _has_slots(free: Ints, model: Ints, row: int, shape: Ints) -> bool:
    missing = shape[0]
    for slot in range(free.shape[1]):
        if _takes(free[row, slot], model[row, slot], shape):
            missing -= 1
    return missing <= 0


@numba.njit(cache=True)
def _tightest(free: Ints, model: Ints, row: int, shape: Ints) -> int:
    """Return the slot with the least free thousandths that takes a fraction."""
    least, chosen = 1 << 40, 0
    for slot in range(free.shape[1]):
        left = free[row, slot]
        if left < least and _takes(left, model[row, slot], shape):
            least, chosen = left, slot
    return chosen


@numba.njit(cache=True)
def _gradient(
    free: Ints,
    model: Ints,
    bulk: Ints,
    row: int,
    shape: Ints,
    policy: int,
    devices: Ints,
    milli: Ints,
    models: Ints,
    cpu: Ints,
    weight: Ints,
    per_device: Ints,
    scarcity: Ints,
    counts: Ints,
    lows: Ints,
) -> tuple[int, int]:
    """Score by gradients, as `scores` does; `counts` and `lows` are scratch per typical shape."""
    total = 0
    for slot in range(free.shape[1]):
        total += free[row, slot]
    has = bulk[row, CPU]
    after = has - shape[HEAD + CPU]
    before = 0
    for index in range(len(weight)):
        count, low = 0, 0
        for slot in range(free.shape[1]):
            left = free[row, slot]
            if left >= milli[index] and (models[index] >> model[row, slot]) & 1 == 1:
                count += 1
            else:
                low += left
        counts[index], lows[index] = count, low
        hosts = devices[index] > 0 and count >= devices[index] and has >= cpu[index]
        before += weight[index] * (low if hosts else total)
    if policy == _KAREZ:
        before += PPM * _stranded(bulk, row, shape, per_device, total, False)
    best, chosen = NEVER, 0
    for slot in range(free.shape[1]):
        left = free[row, slot]
        if not _takes(left, model[row, slot], shape) and shape[0] > 0:
            continue
        slot_left = left - shape[1]
        if shape[0] == 1 and shape[1] < MILLI:
            if _seen_before(free, model, row, slot):
                continue
            now = 0
            for index in range(len(weight)):
                now += weight[index] * _wasted_without(
                    left,
                    shape[1],
                    (models[index] >> model[row, slot]) & 1 == 1,
                    milli[index],
                    devices[index],
                    counts[index],
                    lows[index],
                    after >= cpu[index],
                    total - shape[1],
                )
        else:
            slot_left = 0
            now = 0
            for index in range(len(weight)):
                now += weight[index] * _wasted_whole(
                    free,
                    model,
                    row,
                    shape,
                    models[index],
                    milli[index],
                    devices[index],
                    after >= cpu[index],
                )
        rest = total - shape[0] * shape[1]
        if policy == _KAREZ:
            now += PPM * _stranded(bulk, row, shape, per_device, rest, True)
            now += _taken_scarcity(free, model, row, slot, shape, scarcity)
        points = _points(before - now, slot_left, rest, after, policy)
        if points > best:
            best, chosen = points, slot
        if slot_left == 0 and not (shape[0] == 1 and shape[1] < MILLI):
            return best, 0  # whole devices: the first free ones, nothing to choose
    return best, chosen


@numba.njit(cache=True, inline="always")
def _wasted_without(
    was: int,
    taken: int,
    is_right: bool,
    milli: int,
    devices: int,
    count: int,
    low: int,
    has_cpu: bool,
    total: int,
) -> int:
    """Thousandths that a typical shape cannot use once `taken` of one slot is held."""
    if is_right and was >= milli:
        if was - taken < milli:
            count -= 1
            low += was - taken
    else:
        low -= taken
    return low if devices > 0 and count >= devices and has_cpu else total


@numba.njit(cache=True, inline="always")
def _wasted_whole(
    free: Ints,
    model: Ints,
    row: int,
    shape: Ints,
    models: int,
    milli: int,
    devices: int,
    has_cpu: bool,
) -> int:
    """Thousandths that a typical shape cannot use once the first allowed devices are held."""
    missing, total, low, count = shape[0], 0, 0, 0
    for slot in range(free.shape[1]):
        left = free[row, slot]
        if missing > 0 and _takes(left, model[row, slot], shape):
            left -= shape[1]
            missing -= 1
        total += left
        if left >= milli and (models >> model[row, slot]) & 1 == 1:
            count += 1
        else:
            low += left
    return low if devices > 0 and count >= devices and has_cpu else total


@numba.njit(cache=True, inline="always")
def _seen_before(free: Ints, model: Ints, row: int, slot: int) -> bool:
    """Whether an earlier slot equals this one, so that its score would be the same."""
    for other in range(slot):
        same = free[row, other] == free[row, slot]
        if same and model[row, other] == model[row, slot]:
            return True
    return False


@numba.njit(cache=True, inline="always")
def _stranded(
    bulk: Ints, row: int, shape: Ints, per_device: Ints, total: int, is_after: bool
) -> int:
    result = 0
    for index in range(bulk.shape[1]):
        if per_device[index] > 0:
            has = bulk[row, index] - (shape[HEAD + index] if is_after else 0)
            result += max(0, total - has * MILLI // per_device[index])
    return result


@numba.njit(cache=True, inline="always")
def _taken_scarcity(
    free: Ints, model: Ints, row: int, slot: int, shape: Ints, scarcity: Ints
) -> int:
    if shape[0] == 1:
        return int(scarcity[model[row, slot]] * shape[1])
    missing, result = shape[0], 0
    for index in range(free.shape[1]):
        if missing > 0 and _takes(free[row, index], model[row, index], shape):
            result += scarcity[model[row, index]] * shape[1]
            missing -= 1
    return result


@numba.njit(cache=True, inline="always")
def _points(gain: int, slot_left: int, left: int, cpu_left: int, policy: int) -> int:
    if policy == _FGD:
        return int(np.searchsorted(SIGMOID_STEPS, gain, side="right"))
    tightness = slot_left + left // NODE_SHARE + cpu_left // CPU_SHARE
    return (2 * (gain // STEP) << TIE_BITS) - tightness
