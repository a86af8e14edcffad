"""Reservations and backfill: when a gang could start, and who may start before it."""

from collections.abc import Sequence
from dataclasses import dataclass

from karez.core.gangs import GangSpec
from karez.core.grants import Grant
from karez.core.workloads import WorkloadId
from karez.scheduling.cluster_state import ClusterState, work_rate
from karez.scheduling.placement.capacity import Pool
from karez.scheduling.placement.placement import fits, place_gang
from karez.scheduling.queue.order import PendingWorkload, SchedulingPolicy, SortKey


@dataclass(slots=True, kw_only=True)
class Reservation:
    """Future capacity of the first workload that does not fit: nobody passes who would delay it."""

    holder: PendingWorkload
    starts_at: float | None
    """None: the ends of the running workloads do not tell."""
    pool_then: Pool | None
    """The pool as it will be at `starts_at`, the holder placed."""

    def allows(self, grants: Sequence[Grant], ends_by: float | None) -> bool:
        """Whether a workload with these grants lets the holder start in time; if so, count it."""
        if self.starts_at is None or self.pool_then is None:
            return False
        if ends_by is not None and ends_by <= self.starts_at:
            return True
        if not self.pool_then.is_free(grants):
            return False
        self.pool_then.reserve(grants)  # these grants are outside the holder's
        return True


@dataclass(slots=True)
class Backfill:
    """Which workloads may pass the holder of the reservation; there is at most one."""

    reservation: Reservation | None = None

    @property
    def holder(self) -> WorkloadId | None:
        """The workload that holds the reservation."""
        return None if self.reservation is None else self.reservation.holder.id

    def is_open_to(self, ident: WorkloadId) -> bool:
        """Whether nobody else holds a reservation."""
        return self.holder in (None, ident)

    def allows(self, waiting: PendingWorkload, grants: Sequence[Grant], now: float) -> bool:
        """Whether a start with these grants leaves the reservation's holder its start time."""
        if self.reservation is None or self.is_open_to(waiting.id):
            return True
        return self.reservation.allows(grants, waiting.ends_by(now))

    def drop_if_overtaken(self, rank: SortKey, policy: SchedulingPolicy) -> None:
        """Drop the reservation if a workload of this rank now comes before its holder."""
        if self.reservation is not None and rank < self.reservation.holder.sort_key(policy):
            self.reservation = None

    def drop_if_held_by(self, ident: WorkloadId) -> None:
        """Drop the reservation of a workload that has started."""
        if self.holder == ident:
            self.reservation = None


def make_reservation(
    cluster: ClusterState, waiting: PendingWorkload, gang: GangSpec, now: float
) -> Reservation:
    """Reserve the earliest start that the known ends of running workloads allow."""
    opens_at, then = earliest_start(cluster, gang, now)
    if then is not None:
        place_gang(gang, then)
    return Reservation(holder=waiting, starts_at=opens_at, pool_then=then)


def earliest_start(
    cluster: ClusterState, gang: GangSpec, now: float
) -> tuple[float | None, Pool | None]:
    """Find when a gang fits by the known ends of running workloads, and the pool at that time."""
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


def start_gain_device_s(
    cluster: ClusterState, waiting: PendingWorkload, gang: GangSpec, now: float
) -> float:
    """Device-seconds of waiting that an immediate start saves, as far as ends are known."""
    opens_at = make_reservation(cluster, waiting, gang, now).starts_at
    waits_s = now - waiting.since if opens_at is None else opens_at - now
    return waits_s * waiting.devices


def should_wait_for_faster(
    cluster: ClusterState,
    waiting: PendingWorkload,
    gang: GangSpec,
    grants: Sequence[Grant],
    now: float,
) -> bool:
    """Whether a workload would end sooner if it waited for a faster alternative than these grants.

    True only where its own duration and the ends of the running workloads are known.
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
