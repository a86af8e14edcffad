"""Room to come: when a gang could start, kept free for the first in line."""

from collections.abc import Sequence
from dataclasses import dataclass

from karez.core.resources import Grant
from karez.core.workloads import GangSpec
from karez.scheduling.floor import Floor, pace
from karez.scheduling.line import Waiting
from karez.scheduling.place import fits, seat
from karez.scheduling.pool import Pool


@dataclass(slots=True, kw_only=True)
class Reservation:
    """Kept for the first in line: nobody passes who would delay it."""

    holder: Waiting
    opens_at: float | None
    """None: nobody knows."""
    then: Pool | None
    """The pool as it will be, the holder placed."""

    def lets_pass(self, grants: Sequence[Grant], ends_by: float | None) -> bool:
        """Whether work placed like this lets the holder start in time; it is counted if so."""
        if self.opens_at is None or self.then is None:
            return False
        if ends_by is not None and ends_by <= self.opens_at:
            return True
        if not self.then.has(grants):
            return False
        self.then.hold(grants)  # it uses only what the holder leaves
        return True


def reservation(floor: Floor, waiting: Waiting, gang: GangSpec, now: float) -> Reservation:
    """The earliest start that the known ends allow."""
    opens_at, then = opening(floor, gang, now)
    if then is not None:
        seat(gang, then)
    return Reservation(holder=waiting, opens_at=opens_at, then=then)


def opening(floor: Floor, gang: GangSpec, now: float) -> tuple[float | None, Pool | None]:
    """When a gang's room is there by the known ends, and the pool as it is then."""
    ends = sorted({run.ends_by for run in floor.running.values() if run.ends_by is not None})
    low, high = 0, len(ends)
    best: Pool | None = None
    while low < high:  # the first end after which it fits: more room never fits less
        middle = (low + high) // 2
        then = floor.pool_at(ends[middle])
        if fits(gang, then):
            high, best = middle, then
        else:
            low = middle + 1
    return (None, None) if best is None else (max(now, ends[high]), best)


def is_better_later(
    floor: Floor, waiting: Waiting, gang: GangSpec, grants: Sequence[Grant], now: float
) -> bool:
    """Whether it would end sooner if it waited for a faster alternative than it could have now.

    Only where its own length is known, and when the others end.
    """
    if waiting.expected_s is None or len(gang.each) < 2:
        return False
    workers = [grant for grant in grants if not grant.role]
    left_s, rate = waiting.left_s(waiting.done_s), pace(gang, workers)
    ends_now = now + left_s / rate
    for need in gang.each:
        if need.speed <= rate or workers[0].meets(need):
            continue
        only = GangSpec(
            min=gang.want, want=gang.want, each=(need,), topology=gang.topology, among=gang.among
        )
        opens_at, _ = opening(floor, only, now)
        if opens_at is not None and opens_at + left_s / need.speed < ends_now:
            return True
    return False
