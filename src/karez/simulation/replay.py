"""Replays the jobs of a trace through the production scheduler: starts, preemptions and ends.

Time jumps from event to event: an arrival, an end, a node that fails or recovers, or a rescan of
the queue.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from karez.core.devices import DeviceKind
from karez.core.grants import Grant
from karez.core.nodes import Node, NodeId, NodeState
from karez.core.workloads import WorkloadId
from karez.scheduling.decision_log import ClusterDelta, RecordedEngine, format_decision
from karez.scheduling.decisions import Action, Preempt, Resize, Start
from karez.scheduling.engine import RESCAN_S, SchedulingEngine
from karez.scheduling.preemption.elastic import RESIZE_S
from karez.scheduling.queue.order import PendingWorkload
from karez.simulation.failures import Outage, OutageSchedule
from karez.simulation.outcomes import Outcome, Usage
from karez.simulation.running_jobs import ReplayedJob, RunningJobs
from karez.simulation.trace_gangs import gang_of
from karez.simulation.trace_job import TraceJob


@dataclass(slots=True, kw_only=True)
class Replay:
    """Replays one partition of the pool and the jobs that run there."""

    engine_log: RecordedEngine
    nodes: Sequence[Node]
    jobs: Sequence[TraceJob]
    known: bool
    """Whether the scheduler knows how long jobs run."""
    on_end: Callable[[], object]
    """Called after each end of a job."""
    kinds: tuple[DeviceKind, ...]
    """Accelerator kinds of the nodes: where a job runs that names no kind."""
    outages: Sequence[Outage] = ()
    on_step: Callable[[SchedulingEngine, float], object] | None = None
    """Called with the engine and the time after each step."""
    first: ClusterDelta = field(default_factory=lambda: ClusterDelta(at=0.0, is_reset=True))
    use: list[Usage] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    """The decisions as lines; a live cloud with the same inputs logs the same lines."""
    preemptions: int = 0
    resizes: int = 0
    _arrived: int = 0
    _running: RunningJobs = field(default_factory=RunningJobs)

    @property
    def engine(self) -> SchedulingEngine:
        """The scheduling engine; another one takes its place when nodes change."""
        return self.engine_log.engine

    def run(self) -> list[Outcome]:
        """Replay until every job has ended, or no job left can start."""
        outcomes: list[Outcome] = []
        schedule, rescan_at = OutageSchedule.of(self.outages), math.inf
        while self._arrived < len(self.jobs) or self._running.jobs:
            ends_at = self._running.next_end()
            now = min(self._next_arrival(), ends_at, rescan_at, schedule.next_at)
            if now == math.inf:
                break  # the jobs left can never start: nothing would change
            ended = self._running.pop_ended(now)
            for _, outcome in ended:
                outcomes.append(outcome)
                self.on_end()
            arrived, ids = self._arrivals(now), tuple(ident for ident, _ in ended)
            step = replace(self.first, at=now, ended=ids, arrived=arrived)
            self.first = ClusterDelta(at=0.0)
            if schedule.advance(now):
                step = self._with_nodes_down(step, schedule.down)
            self._advance(step)
            rescan_at = now + RESCAN_S if self._needs_rescan() else math.inf
        return outcomes

    def _next_arrival(self) -> float:
        return self.jobs[self._arrived].arrives_s if self._arrived < len(self.jobs) else math.inf

    def _arrivals(self, now: float) -> tuple[PendingWorkload, ...]:
        """Queue the jobs that have arrived by now."""
        arrived: list[PendingWorkload] = []
        while self._next_arrival() <= now:
            job = self.jobs[self._arrived]
            pending = self._pending(self._arrived, job)
            self._running.jobs[pending.id] = ReplayedJob(
                job=job, pending=pending, work_left_s=job.runs_s
            )
            arrived.append(pending)
            self._arrived += 1
        return tuple(arrived)

    def _pending(self, number: int, job: TraceJob) -> PendingWorkload:
        return PendingWorkload(
            id=WorkloadId(str(number)),
            project=job.project,
            gang=job.gang or gang_of(job.devices, self.kinds),
            priority=job.priority,
            since=job.arrives_s,
            order=number,
            expected_s=job.runs_s if self.known else None,
            preemptible=job.preemptible,
            resumes=job.resumes,
            deadline_at=None if job.deadline_s is None else job.arrives_s + job.deadline_s,
        )

    def _needs_rescan(self) -> bool:
        """Whether a later look at the queue could change something without any event."""
        cluster, policy = self.engine.cluster, self.engine.policy
        if policy.preempts and self.engine.pending_count and cluster.running:
            return True
        return policy.elastic and any(
            len(cluster.running[ident].workers) < cluster.running[ident].as_pending.gang.most
            for ident in cluster.elastic
        )

    def _with_nodes_down(self, step: ClusterDelta, down: frozenset[NodeId]) -> ClusterDelta:
        """A step in which nodes failed or recovered: jobs on failed nodes are queued again."""
        lost: list[WorkloadId] = []
        requeued: list[PendingWorkload] = []
        for ident in self._running.on_nodes(down):
            job = self._running.jobs[ident]
            done_s = self.engine.cluster.running[ident].done_s(step.at) if job.job.resumes else 0.0
            self._running.stop(ident, step.at)
            job.interruptions += 1
            lost.append(ident)
            requeued.append(replace(job.pending, done_s=done_s))
        nodes = tuple(
            replace(node, state=NodeState.LOST) if node.id in down else node for node in self.nodes
        )
        ended, arrived = (*step.ended, *lost), (*requeued, *step.arrived)
        return replace(step, nodes=nodes, ended=ended, arrived=arrived)

    def _advance(self, step: ClusterDelta) -> None:
        for action in self.engine_log.advance(step):
            self.decisions.append(format_decision(step.at, action))
            self._carry_out(action, step.at)
        self.use.append(Usage(at_s=step.at, amounts=dict(self._running.held)))
        if self.on_step is not None:
            self.on_step(self.engine, step.at)

    def _carry_out(self, action: Action, now: float) -> None:
        job = self._running.jobs[action.id]
        match action:
            case Start(grants=grants):
                job.first_started_at = now if job.first_started_at is None else job.first_started_at
                self._start(action.id, grants, now)
            case Preempt():
                self._running.stop(action.id, now)
                job.preemptions += 1
                self.preemptions += 1
            case Resize(grants=grants):
                self._running.pause(action.id, now)
                self.resizes += 1
                self._start(action.id, grants, now + RESIZE_S)

    def _start(self, ident: WorkloadId, grants: tuple[Grant, ...], at: float) -> None:
        workload = self.engine.cluster.running.get(ident)
        work_rate = workload.work_rate if workload is not None else 1.0
        self._running.start(ident, grants, at=at, work_rate=work_rate)
