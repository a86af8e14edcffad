"""Order of the queue: a sort key per workload that does not change while it waits."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from karez.core.gangs import GangSpec
from karez.core.units import MILLI
from karez.core.workloads import WorkloadId

AGING_S_PER_DOUBLING: Final = 4 * 86_400.0
"""How much longer a workload with twice the work waits before it ranks equal. Measured
on Philly at a quarter of its nodes: one day gives an average completion time of 0.29 of FIFO's,
four days 0.22, and the longest wait is shorter too (docs/scheduling.md)."""
WORK_FLOOR: Final = 600.0
"""Device-seconds below which all work counts as small: ten minutes of one device."""
DEADLINE_LEAD_S: Final = 3600.0
"""How long before its last chance to start in time a workload with a deadline ranks ahead of every
later arrival."""
RESTART_S: Final = 60.0
"""Seconds that a stop and restart cost a gang, where nothing better is known."""


class QueueOrder(StrEnum):
    """Ways to order the queue."""

    FIFO = "fifo"
    SJF = "sjf"
    BACKFILL = "backfill"
    KAREZ = "karez"


SortKey = tuple[int, float, float, int]
"""Sort key (negated priority, place, arrival, number); the smallest goes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingPolicy:
    """Rules by which the scheduling engine decides."""

    order: QueueOrder = QueueOrder.KAREZ
    preempts: bool = False
    """Whether running workloads may be preempted for those that rank far ahead of them."""
    elastic: bool = False
    """Whether running gangs may be resized within their range."""
    grows_by_gain: bool = False
    """Whether a gang grows as soon as that pays; else ten minutes after its last change, as
    karez 0.2 did."""
    defragments: bool = False
    """Whether running workloads may be relocated for a gang that would fit then."""
    fair: bool = False
    """Whether projects that used more than their fair share rank lower."""
    reserve_after_s: float = 60.0
    """How long the first workload that does not fit waits before it gets a reservation."""

    @property
    def is_strict(self) -> bool:
        """Whether no workload may pass the first in the queue."""
        return self.order in (QueueOrder.FIFO, QueueOrder.SJF)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingWorkload:
    """A workload in the queue."""

    id: WorkloadId
    project: str
    gang: GangSpec
    priority: int
    since: float
    order: int = 0
    max_duration_s: float | None = None
    expected_s: float | None = None
    """Seconds from start to end with all wanted workers at speed 1, if known."""
    done_s: float = 0.0
    """Seconds of `expected_s` that are done, or how long the workload has run so far."""
    preemptible: bool = True
    resumes: bool = True
    """Whether a restart continues from where the workload stopped; else its work is lost."""
    deadline_at: float | None = None

    @property
    def devices(self) -> float:
        """Devices of the first alternative, all workers together."""
        return self.gang.want * self.gang.each[0].milli / MILLI

    @property
    def can_stop(self) -> bool:
        """Whether the workload can leave its nodes without losing work."""
        return self.preemptible and self.resumes

    @property
    def needs_s(self) -> float | None:
        """Seconds that the workload needs its nodes without a break; None: it can leave them."""
        ends_by = self.ends_by(0.0)
        return None if self.can_stop else math.inf if ends_by is None else ends_by

    def remaining_s(self, done_s: float) -> float:
        """Estimate the seconds that the workload still runs after `done_s`.

        Where nothing is known, as long again as it has run: for the heavy-tailed durations of
        training jobs that is the rule which needs no knowledge (J. Gu et al., "Tiresias", NSDI
        2019, serve by least attained service).
        """
        if self.expected_s is None:
            return done_s
        return max(0.0, self.expected_s - done_s)

    def sort_key(self, policy: SchedulingPolicy, done_s: float | None = None) -> SortKey:
        """Sort key of the workload under a policy; the smallest goes first."""
        done = self.done_s if done_s is None else done_s
        place = self.since
        if policy.order == QueueOrder.SJF:
            place = self.remaining_s(done)
        elif policy.order == QueueOrder.KAREZ:
            work = self.remaining_s(done) * self.devices
            place = self.since + AGING_S_PER_DOUBLING * math.log2(
                max(work, WORK_FLOOR) / WORK_FLOOR
            )
            if self.deadline_at is not None:
                place = min(place, self.deadline_at - self.remaining_s(done) - DEADLINE_LEAD_S)
        return (-self.priority, place, self.since, self.order)

    def ends_by(self, now: float) -> float | None:
        """When the workload ends at the latest, or as expected, if all its workers start now."""
        if self.expected_s is not None:
            return now + self.remaining_s(self.done_s)
        return None if self.max_duration_s is None else now + self.max_duration_s
