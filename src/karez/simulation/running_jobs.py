"""The jobs of a replay that have arrived and not ended: their work left, and what they hold."""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from karez.core.devices import DeviceKind
from karez.core.grants import Grant
from karez.core.nodes import NodeId
from karez.core.workloads import WorkloadId
from karez.scheduling.queue.order import RESTART_S, PendingWorkload
from karez.simulation.outcomes import Outcome
from karez.simulation.trace_job import TraceJob


@dataclass(slots=True, kw_only=True)
class ReplayedJob:
    """One job that has arrived and not ended."""

    job: TraceJob
    pending: PendingWorkload
    """The job as the scheduler queues it."""
    work_left_s: float
    """Work to do, in seconds with all the workers it wants, at speed 1."""
    work_rate: float = 1.0
    """Seconds of work done in one second."""
    started_at: float = 0.0
    first_started_at: float | None = None
    version: int = 0
    """Grows whenever the job stops or changes its size; ends of older versions are void."""
    preemptions: int = 0
    interruptions: int = 0
    grants: tuple[Grant, ...] = ()

    def stop(self, now: float) -> None:
        """Stop the job; work done so far counts if the job can resume."""
        if self.job.resumes:
            self._count_work(now)
            self.work_left_s += RESTART_S
        else:
            self.work_left_s = self.job.runs_s
        self.version += 1
        self.grants = ()

    def pause(self, now: float) -> None:
        """Count the work done so far, before the job goes on with other workers."""
        self._count_work(now)
        self.version += 1

    def outcome(self, ended_at: float) -> Outcome:
        """The job's outcome, once it has ended."""
        assert self.first_started_at is not None  # noqa: S101 - only a job that ran can end
        return Outcome(
            job=self.job,
            started_s=self.first_started_at,
            ended_s=ended_at,
            preemptions=self.preemptions,
            interruptions=self.interruptions,
        )

    def _count_work(self, now: float) -> None:
        worked_s = max(0.0, now - self.started_at)
        self.work_left_s = max(0.0, self.work_left_s - worked_s * self.work_rate)


@dataclass(slots=True, kw_only=True)
class RunningJobs:
    """All jobs that have arrived and not ended, with the amounts they hold."""

    jobs: dict[WorkloadId, ReplayedJob] = field(default_factory=dict)
    held: Counter[DeviceKind] = field(default_factory=Counter)
    """Amounts in use, in each kind's unit."""
    _ends: list[tuple[float, int, WorkloadId]] = field(default_factory=list)
    """Heap of (when, version, job)."""

    def next_end(self) -> float:
        """When the next job ends; infinity if none runs."""
        while self._ends:
            at, version, ident = self._ends[0]
            if self._is_current(ident, version):
                return at
            heapq.heappop(self._ends)
        return math.inf

    def pop_ended(self, now: float) -> list[tuple[WorkloadId, Outcome]]:
        """Remove the jobs that have ended by now; returns them in order of their end."""
        ended: list[tuple[WorkloadId, Outcome]] = []
        while self._ends and self._ends[0][0] <= now:
            at, version, ident = heapq.heappop(self._ends)
            if self._is_current(ident, version):
                job = self.jobs.pop(ident)
                self._book(job.grants, -1)
                ended.append((ident, job.outcome(at)))
        return ended

    def start(
        self, ident: WorkloadId, grants: tuple[Grant, ...], *, at: float, work_rate: float
    ) -> None:
        """Let a job run on its grants from an instant on."""
        job = self.jobs[ident]
        job.work_rate, job.started_at, job.grants = work_rate, at, grants
        self._book(grants, 1)
        heapq.heappush(self._ends, (at + job.work_left_s / work_rate, job.version, ident))

    def stop(self, ident: WorkloadId, now: float) -> None:
        """Stop a job, which releases its grants."""
        self._book(self.jobs[ident].grants, -1)
        self.jobs[ident].stop(now)

    def pause(self, ident: WorkloadId, now: float) -> None:
        """Release the grants of a job that is about to start on others."""
        self.jobs[ident].pause(now)
        self._book(self.jobs[ident].grants, -1)

    def on_nodes(self, nodes: frozenset[NodeId]) -> Iterable[WorkloadId]:
        """The jobs that hold something on any of these nodes."""
        return [
            ident
            for ident, job in self.jobs.items()
            if any(grant.node in nodes for grant in job.grants)
        ]

    def _is_current(self, ident: WorkloadId, version: int) -> bool:
        job = self.jobs.get(ident)
        return job is not None and job.version == version

    def _book(self, grants: Sequence[Grant], sign: int) -> None:
        for grant in grants:
            for kind, amount in grant.amounts.items():
                self.held[kind] += sign * amount
