"""Room to come: when a gang could start, kept free for the first in line."""

from collections.abc import Sequence
from dataclasses import dataclass

from karez.core.gangs import GangSpec
from karez.core.grants import Grant
from karez.scheduling.cluster_state import ClusterState, work_rate
from karez.scheduling.placement.capacity import Pool
from karez.scheduling.placement.placement import fits, place_gang
from karez.scheduling.queue.order import PendingWorkload


@dataclass(slots=True, kw_only=True)
class Reservation:
    """Kept for the first in line: nobody passes who would delay it."""

    holder: PendingWorkload
    starts_at: float | None
    """None: nobody knows."""
    pool_then: Pool | None
    """The pool as it will be, the holder placed."""

    def allows(self, grants: Sequence[Grant], ends_by: float | None) -> bool:
        """Whether work placed like this lets the holder start in time; it is counted if so."""
        if self.starts_at is None or self.pool_then is None:
            return False
        if ends_by is not None and ends_by <= self.starts_at:
            return True
        if not self.pool_then.is_free(grants):
            return False
        self.pool_then.reserve(grants)  # it uses only what the holder leaves
        return True


def make_reservation(
    cluster: ClusterState, waiting: PendingWorkload, gang: GangSpec, now: float
) -> Reservation:
    """The earliest start that the known ends allow."""
    opens_at, then = earliest_start(cluster, gang, now)
    if then is not None:
        place_gang(gang, then)
    return Reservation(holder=waiting, starts_at=opens_at, pool_then=then)


def earliest_start(
    cluster: ClusterState, gang: GangSpec, now: float
) -> tuple[float | None, Pool | None]:
    """When a gang's room is there by the known ends, and the pool as it is then."""
    ends = sorted({run.ends_by for run in cluster.running.values() if run.ends_by is not None})
    low, high = 0, len(ends)
    best: Pool | None = None
    while low < high:  # the first end after which it fits: more room never fits less
        middle = (low + high) // 2
        then = cluster.pool_after(ends[middle])
        if fits(gang, then):
            high, best = middle, then
        else:
            low = middle + 1
    return (None, None) if best is None else (max(now, ends[high]), best)


def should_wait_for_faster(
    cluster: ClusterState,
    waiting: PendingWorkload,
    gang: GangSpec,
    grants: Sequence[Grant],
    now: float,
) -> bool:
    """Whether it would end sooner if it waited for a faster alternative than it could have now.

    Only where its own length is known, and when the others end.
    """
    if waiting.expected_s is None or len(gang.each) < 2:
        return False
    workers = [grant for grant in grants if not grant.role]
    left_s, rate = waiting.remaining_s(waiting.done_s), work_rate(gang, workers)
    ends_now = now + left_s / rate
    for need in gang.each:
        if need.speed <= rate or workers[0].meets(need):
            continue
        only = GangSpec(
            min=gang.want, want=gang.want, each=(need,), topology=gang.topology, among=gang.among
        )
        opens_at, _ = earliest_start(cluster, only, now)
        if opens_at is not None and opens_at + left_s / need.speed < ends_now:
            return True
    return False
