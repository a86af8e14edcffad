"""Which rung of the ladder to try first. Pure.

The cheapest by what it is expected to cost, which the job's own receipts teach; or, where the user
says so, simply the order given.
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
"""What each rung costs before the job has tried it: measured by benchmarks/bench_recovery.py, the
restart with half a minute of work done again."""
WINDOW_S = 3600.0
"""How long a fault counts against its node. Source: ByteRobust's rule of a second fault within the
hour, as in the design notes on resilience."""
SHRUNK_S = 600.0
"""How long a gang that shrank is expected to stay small: half a node's usual repair in the traces
is hours, but most pools have a device free before."""
CONDEMNED = 3
"""Faults that a node which is to be left counts for: another place is cheaper then."""
LOSING = ("in-place", "replace", "shrink", "restart")
"""The rungs that mend a lost process; `retry` mends only a broken collective."""


def expected_costs(receipts: Iterable[Receipt]) -> dict[str, float]:
    """Rung -> expected seconds: the prior counts as one recovery beside those that happened.

    A recovery in which more went wrong teaches nothing of its last rung.
    """
    found = {rung: [prior] for rung, prior in PRIOR_S.items()}
    for receipt in receipts:
        if "; then " not in receipt.cause:
            found[receipt.rung].append(max(0.0, receipt.recovery_s))
    return {rung: fmean(seconds) for rung, seconds in found.items()}


def recent_faults(past: Iterable[tuple[NodeId, float]], node: NodeId, now: float) -> int:
    """Faults of a node within the window."""
    return sum(1 for where, at in past if where == node and now - at < WINDOW_S)


def order_rungs(
    ladder: Sequence[str],
    expected: Mapping[str, float],
    *,
    again: int,
    world: int,
    is_fixed: bool = False,
) -> tuple[str, ...]:
    """The rungs that mend a lost process, the one to try first first.

    Args:
        ladder: Those that the user allows, in the user's order.
        expected: Rung -> seconds.
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
        price["in-place"] += SHRUNK_S + price["replace"]  # whatever it costs elsewhere
    price["in-place"] += chance * (expected["in-place"] + expected["replace"])
    price["shrink"] += SHRUNK_S / max(1, world)
    price["restart"] += SHRUNK_S  # it gives up every process of the gang: only when nothing is left
    return tuple(sorted(rungs, key=lambda rung: price[rung]))
