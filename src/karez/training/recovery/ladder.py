"""Order of the rungs of the recovery ladder. Pure.

The rung with the lowest expected cost is first, as learnt from the job's own receipts; where the
user fixes the ladder, the order given is kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from karez.core.nodes import NodeId
from karez.core.receipts import Receipt

PRIOR_S: Mapping[str, float] = {
    "retry": 0.1,
    "in-place": 0.2,
    "replace": 0.5,
    "shrink": 0.5,
    "restart": 30.0,
}
"""Rung -> seconds it is expected to cost before the job has tried it: measured by
benchmarks/bench_recovery.py, the restart with half a minute of repeated work."""
WINDOW_S = 3600.0
"""Seconds that a fault counts against its node. Source: ByteRobust's rule of a second fault within
the hour, as in the design notes on resilience."""
SHRUNK_S = 600.0
"""Seconds that a gang which shrank is expected to stay small: half a node's usual repair in the
traces is hours, but most pools have a device free before."""
CONDEMNED = 3
"""Faults that are counted for an evicted node: another node is cheaper then."""
LOSING = ("in-place", "replace", "shrink", "restart")
"""The rungs that recover a lost process; `retry` recovers only a broken collective."""


def expected_costs(receipts: Iterable[Receipt]) -> dict[str, float]:
    """Rung -> expected seconds: the mean of the prior and of the recoveries that happened.

    A recovery with a second fault is left out: its time is not that of its last rung alone.
    """
    seconds_by_rung = {rung: [prior] for rung, prior in PRIOR_S.items()}
    for receipt in receipts:
        if "; then " not in receipt.cause:
            seconds_by_rung[receipt.rung].append(max(0.0, receipt.recovery_s))
    return {rung: fmean(seconds) for rung, seconds in seconds_by_rung.items()}


def recent_faults(failures: Iterable[tuple[NodeId, float]], node: NodeId, now: float) -> int:
    """Number of faults of a node within WINDOW_S."""
    return sum(1 for where, at in failures if where == node and now - at < WINDOW_S)


def order_rungs(
    ladder: Sequence[str],
    expected: Mapping[str, float],
    *,
    again: int,
    world: int,
    is_fixed: bool = False,
) -> tuple[str, ...]:
    """The rungs that recover a lost process, in the order in which they are tried.

    Args:
        ladder: The rungs that the user allows, in the user's order.
        expected: Rung -> expected cost in seconds.
        again: Faults that the node had within the window before this one.
        world: Ranks of the gang, for what a shrink costs.
        is_fixed: Keep the user's order.
    """
    rungs = [rung for rung in ladder if rung in LOSING]
    if is_fixed:
        return tuple(rungs)
    chance = again / (again + 1)
    price = dict(expected)
    if again >= CONDEMNED:
        price["in-place"] += SHRUNK_S + price["replace"]  # dearer than any other node
    price["in-place"] += chance * (expected["in-place"] + expected["replace"])
    price["shrink"] += SHRUNK_S / max(1, world)
    price["restart"] += SHRUNK_S  # it gives up every process of the gang: the last resort
    return tuple(sorted(rungs, key=lambda rung: price[rung]))
