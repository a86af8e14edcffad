"""Queueing simulation: how long the jobs of a trace wait on an inventory under one policy."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from karez.core.devices import DeviceKind
from karez.core.errors import BadRequest
from karez.core.identity import Project
from karez.core.nodes import Node
from karez.scheduling.engine import SchedulingEngine
from karez.scheduling.placement.capacity import SLOTS
from karez.scheduling.queue.order import AGING_S_PER_DOUBLING, QueueOrder, SchedulingPolicy
from karez.simulation.failures import Failures, outages
from karez.simulation.outcomes import Outcome
from karez.simulation.partitions import Hooks, partitions, replay_of
from karez.simulation.queue_report import QueueReport, group_times, times_of
from karez.simulation.replay import Replay
from karez.simulation.resource_usage import kinds_used, usage_curve
from karez.simulation.trace_job import TraceJob

SAMPLES = 200
"""How often a replay samples the reasons why jobs wait."""
MOST_STRETCH = 20
"""Longest replay, as a multiple of the trace without any waiting: failures are drawn that far."""


def rules_of(policy: str, *, known: bool) -> SchedulingPolicy:
    """A policy by name; `known` says whether the scheduler knows how long jobs run.

    Raises:
        BadRequest: The policy needs durations that are unknown.
    """
    order = QueueOrder(policy)
    if order in (QueueOrder.SJF, QueueOrder.BACKFILL) and not known:
        raise BadRequest(
            problem=f"policy {policy} orders by how long jobs run",
            fix="Say --durations known, or take --policy karez, which needs none.",
        )
    if order == QueueOrder.KAREZ:
        return SchedulingPolicy(
            order=order,
            preempts=True,
            elastic=True,
            defragments=True,
            fair=True,
            reserve_after_s=AGING_S_PER_DOUBLING,
        )
    return SchedulingPolicy(order=order, reserve_after_s=0.0)


@dataclass(slots=True, kw_only=True)
class _Monitor:
    """Counts the jobs that have ended, and samples why the others wait."""

    progress: Callable[[int], object]
    every: int
    """Number of ends between two samples."""
    done: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    _next: int = 0

    def count(self) -> None:
        """Count one more job that has ended."""
        self.done += 1
        if self.done % 100 == 0:
            self.progress(self.done)

    def sample(self, engine: SchedulingEngine, _at: float) -> None:
        """Count the reasons of all waiting jobs, if a sample is due."""
        if self.done < self._next or not engine.pending_count:
            return
        self._next = self.done + self.every
        for reason in engine.reasons().values():
            self.reasons[_kind_of(reason)] += 1

    def shares(self) -> tuple[tuple[str, float], ...]:
        """(reason, share of all samples) pairs, the commonest first."""
        total = sum(self.reasons.values())
        return tuple((reason, count / total) for reason, count in self.reasons.most_common())


def _kind_of(reason: str) -> str:
    """A reason without its numbers and names, so that like reasons count together."""
    if "is first in line" in reason:
        return "others are ahead in line"
    if reason.startswith("quota"):
        return "its project's quota is used up"
    if "its turn" in reason:
        return "it is its turn after others of its kind"
    if "faster alternative" in reason:
        return "it ends sooner if it waits for a faster alternative"
    if "no node has" in reason:
        return "no node has what it needs"
    return "too little is free on the nodes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """Options of a queueing simulation."""

    failures: Failures | None = None
    progress: Callable[[int], object] = id
    """Called with the number of jobs that have ended."""
    write: Callable[[str], object] | None = None
    """Takes the lines of the decision log."""
    projects: Mapping[str, Project] = field(default_factory=dict)
    """Limits of projects; a project that is not named has none."""


def queueing(
    nodes: Sequence[Node],
    jobs: Sequence[TraceJob],
    *,
    policy: str,
    known: bool,
    extras: Extras | None = None,
) -> QueueReport:
    """Replay all jobs and report their times; `known` tells the scheduler how long jobs run.

    Raises:
        BadRequest: No job fits any node, or the policy needs durations that are unknown.
    """
    options, rules = extras or Extras(), rules_of(policy, known=known)
    monitor = _Monitor(progress=options.progress, every=max(1, len(jobs) // SAMPLES))
    span_s = max((job.arrives_s + job.runs_s for job in jobs), default=0.0) * MOST_STRETCH
    replays: list[Replay] = []
    outcomes: list[Outcome] = []
    left_out, digest = 0, hashlib.sha256()
    for _, (own_nodes, own_jobs) in sorted(partitions(nodes, jobs).items()):
        hooks = _hooks(own_nodes, options, monitor, span_s)
        replay, too_large = replay_of(own_nodes, own_jobs, rules, hooks, known=known)
        replay.on_step = monitor.sample
        outcomes += replay.run()
        digest.update("\n".join([*replay.decisions, ""]).encode())
        replays.append(replay)
        left_out += too_large
    if not outcomes:
        raise BadRequest(problem="no job of the trace fits the nodes of the inventory")
    return replace(
        _report(replays, outcomes, nodes),
        policy=policy,
        durations="known" if known else "unknown",
        left_out=left_out,
        unfinished=len(jobs) - left_out - len(outcomes),
        log_sha256=digest.hexdigest(),
        reasons=monitor.shares(),
    )


def _hooks(nodes: Sequence[Node], options: Extras, monitor: _Monitor, span_s: float) -> Hooks:
    return Hooks(
        on_end=monitor.count,
        outages=() if options.failures is None else outages(nodes, options.failures, span_s),
        write=options.write,
        projects=options.projects,
    )


def _report(
    replays: Sequence[Replay], outcomes: Sequence[Outcome], nodes: Sequence[Node]
) -> QueueReport:
    """All that follows from the outcomes; the caller fills in the rest."""
    last = max(outcome.ended_s for outcome in outcomes)
    devices = sum(device.kind in SLOTS for node in nodes for device in node.devices)
    work = sum(outcome.job.runs_s * outcome.job.devices for outcome in outcomes)
    return QueueReport(
        policy="",
        durations="",
        nodes=len(nodes),
        devices=devices,
        jobs=len(outcomes),
        left_out=0,
        unfinished=0,
        jct_s=times_of([outcome.jct_s for outcome in outcomes]),
        queued_s=times_of([outcome.queued_s for outcome in outcomes]),
        preemptions=sum(replay.preemptions for replay in replays),
        interruptions=sum(outcome.interruptions for outcome in outcomes),
        resizes=sum(replay.resizes for replay in replays),
        missed_deadlines=sum(_missed_deadline(outcome) for outcome in outcomes),
        utilisation_pct=100 * work / (devices * last) if last and devices else 0.0,
        log_sha256="",
        projects=group_times(outcomes, lambda job: job.project),
        classes=group_times(outcomes, lambda job: job.sort),
        kinds=kinds_used(replays, nodes, last),
        use=usage_curve(replays, last, SLOTS if devices else (DeviceKind.CPU,)),
        reasons=(),
    )


def _missed_deadline(outcome: Outcome) -> bool:
    deadline_s = outcome.job.deadline_s
    return deadline_s is not None and outcome.jct_s > deadline_s
