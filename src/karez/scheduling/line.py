"""Who is next: the order of the line, as one number per workload that time does not change."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from karez.core.units import MILLI
from karez.core.workloads import GangSpec, WorkloadId

AGE_S: Final = 4 * 86_400.0
"""How much longer a workload with twice the work waits before it is equal to one without. Measured
on Philly at a quarter of its nodes: one day gives an average completion time of 0.29 of FIFO's,
four days 0.22, and the longest wait is shorter too (docs/scheduling.md)."""
WORK_FLOOR: Final = 600.0
"""Device-seconds below which all work counts as small: ten minutes of one device."""
RESTART_S: Final = 60.0
"""What it costs a gang to be stopped and started again, where nothing better is known."""


class Order(StrEnum):
    """Ways to stand in line."""

    FIFO = "fifo"
    SJF = "sjf"
    BACKFILL = "backfill"
    KAREZ = "karez"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a desk works."""

    order: Order = Order.KAREZ
    preempts: bool = False
    """Whether running work may be stopped for what is far ahead of it in line."""
    patience_s: float = 60.0
    """How long the first in line lets others pass before it holds a reservation."""

    @property
    def is_strict(self) -> bool:
        """Whether nobody passes the first in line."""
        return self.order in (Order.FIFO, Order.SJF)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A workload in the queue."""

    id: WorkloadId
    project: str
    gang: GangSpec
    priority: int
    since: float
    order: int = 0
    max_duration_s: float | None = None
    expected_s: float | None = None
    """How long it runs from start to end on its devices, where that is known."""
    done_s: float = 0.0
    """How much of that it has behind it, or how long it has run so far."""
    preemptible: bool = True

    @property
    def devices(self) -> float:
        """Devices of its first alternative, all workers together."""
        return self.gang.want * self.gang.each[0].milli / MILLI

    def left_s(self, done_s: float) -> float:
        """Seconds it will probably run on after `done_s`.

        Where nothing is known, as long again as it has run: for the heavy-tailed durations of
        training jobs that is the rule which needs no knowledge (J. Gu et al., "Tiresias", NSDI
        2019, serve by least attained service).
        """
        if self.expected_s is None:
            return done_s
        return max(0.0, self.expected_s - done_s)

    def rank(self, rules: Rules, done_s: float | None = None) -> tuple[int, float, float, int]:
        """Smaller goes first: priority, then place in line."""
        done = self.done_s if done_s is None else done_s
        place = self.since
        if rules.order == Order.SJF:
            place = self.left_s(done)
        elif rules.order == Order.KAREZ:
            work = self.left_s(done) * self.devices
            place = self.since + AGE_S * math.log2(max(work, WORK_FLOOR) / WORK_FLOOR)
        return (-self.priority, place, self.since, self.order)

    def ends_by(self, now: float) -> float | None:
        """When it has surely or expectedly ended if it starts now."""
        if self.expected_s is not None:
            return now + self.left_s(self.done_s)
        return None if self.max_duration_s is None else now + self.max_duration_s
