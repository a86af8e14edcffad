"""How long jobs wait: a trace's jobs on an inventory, under one way of standing in line."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from karez.core.devices import DeviceKind
from karez.core.errors import BadRequest
from karez.core.identity import Project
from karez.core.nodes import Node
from karez.core.units import MILLI
from karez.scheduling.cluster_state import capacity_of
from karez.scheduling.engine import SchedulingEngine
from karez.scheduling.explain.explain import in_units
from karez.scheduling.explain.feasibility import empty_pool
from karez.scheduling.placement.capacity import SLOTS
from karez.scheduling.queue.order import AGING_S_PER_DOUBLING, QueueOrder, SchedulingPolicy
from karez.simulation.failures import Failures, outages
from karez.simulation.replay import Hooks, Outcome, Replay, partitions, replay_of
from karez.simulation.workloads import TraceJob

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """A time over many jobs, in seconds."""

    jobs: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTimes:
    """The jobs of one project, or of one class."""

    name: str
    jct_s: Times
    queued_s: Times


@dataclass(frozen=True, slots=True, kw_only=True)
class KindUse:
    """How much of one kind was held."""

    kind: DeviceKind
    size: float
    """In devices, or in bytes of memory and storage."""
    mean_pct: float
    """Over the whole replay."""
    peak_pct: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReport:
    """What one policy made of a trace."""

    policy: str
    durations: str
    nodes: int
    devices: int
    jobs: int
    left_out: int
    """Jobs that not even the empty pool would hold."""
    unfinished: int
    """Jobs that had not ended when nothing could change any more."""
    jct_s: Times
    queued_s: Times
    preemptions: int
    interruptions: int
    """How often a node failed under a job."""
    resizes: int
    missed_deadlines: int
    utilisation_pct: float
    """Device-seconds of work done, of all there were until the last job ended."""
    log_sha256: str
    """Digest of the decisions, line by line: the same inputs give the same."""
    projects: tuple[GroupTimes, ...]
    classes: tuple[GroupTimes, ...]
    kinds: tuple[KindUse, ...]
    use: tuple[tuple[float, float], ...]
    """(day, accelerators in use on average) pairs, over the whole replay; cores if there are no
    accelerators."""
    reasons: tuple[tuple[str, float], ...]
    """Why jobs waited: (reason, share of those that were asked), the commonest first."""


def rules_of(policy: str, *, known: bool) -> SchedulingPolicy:
    """A policy by name.

    Raises:
        BadRequest: It needs to know how long jobs run and is not told.
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
class _Watch:
    """Counts what has ended, and asks now and then why the others wait."""

    progress: Callable[[int], object]
    done: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    _next: int = 0

    def count(self) -> None:
        """One more job has ended."""
        self.done += 1
        if self.done % 100 == 0:
            self.progress(self.done)

    def look(self, engine: SchedulingEngine, every: int) -> None:
        """Ask for reasons once in so many ends."""
        if self.done < self._next or not engine.pending_count:
            return
        self._next = self.done + every
        for reason in engine.reasons().values():
            self.asked[_kind_of(reason)] += 1


def _kind_of(reason: str) -> str:
    """A reason without its numbers and names, so that like ones count together."""
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


LOOKS = 200
"""How often reasons are asked for in a replay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What a replay may do beside replaying."""

    failures: Failures | None = None
    progress: Callable[[int], object] = id
    """Hears how many jobs have ended."""
    write: Callable[[str], object] | None = None
    """Takes the journal's lines."""
    projects: Mapping[str, Project] = field(default_factory=dict)
    """Limits of projects; one that is not named has none."""


def queueing(
    nodes: Sequence[Node],
    jobs: Sequence[TraceJob],
    *,
    policy: str,
    known: bool,
    extras: Extras | None = None,
) -> QueueReport:
    """Replay all jobs.

    Raises:
        BadRequest: No job fits any node, or the policy cannot do without durations.
    """
    more = extras or Extras()
    rules, watch = rules_of(policy, known=known), _Watch(progress=more.progress)
    span_s = max((job.arrives_s + job.runs_s for job in jobs), default=0.0) * MOST_STRETCH
    every = max(1, len(jobs) // LOOKS)
    replays: list[Replay] = []
    outcomes: list[Outcome] = []
    left_out, digest = 0, hashlib.sha256()
    for _, (own, theirs) in sorted(partitions(nodes, jobs).items()):
        down = outages(own, more.failures, span_s) if more.failures is not None else ()
        hooks = Hooks(on_end=watch.count, outages=down, write=more.write, projects=more.projects)
        replay, too_large = replay_of(own, theirs, rules, hooks, known=known)
        replay.on_step = lambda engine, _at: watch.look(engine, every)
        outcomes += replay.run()
        digest.update("\n".join([*replay.decisions, ""]).encode())
        replays.append(replay)
        left_out += too_large
    if not outcomes:
        raise BadRequest(problem="no job of the trace fits the nodes of the inventory")
    asked = sum(watch.asked.values())
    return replace(
        _report(replays, outcomes, nodes),
        policy=policy,
        durations="known" if known else "unknown",
        left_out=left_out,
        unfinished=len(jobs) - left_out - len(outcomes),
        log_sha256=digest.hexdigest(),
        reasons=tuple((why, count / asked) for why, count in watch.asked.most_common()),
    )


def _report(
    replays: Sequence[Replay], outcomes: Sequence[Outcome], nodes: Sequence[Node]
) -> QueueReport:
    """What can be counted from the outcomes; the caller adds what was asked."""
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
        jct_s=_times([outcome.jct_s for outcome in outcomes]),
        queued_s=_times([outcome.queued_s for outcome in outcomes]),
        preemptions=sum(replay.preemptions for replay in replays),
        interruptions=sum(outcome.interruptions for outcome in outcomes),
        resizes=sum(replay.resizes for replay in replays),
        missed_deadlines=sum(
            outcome.job.deadline_s is not None and outcome.jct_s > outcome.job.deadline_s
            for outcome in outcomes
        ),
        utilisation_pct=100 * work / (devices * last) if last and devices else 0.0,
        log_sha256="",
        projects=_groups(outcomes, lambda job: job.project),
        classes=_groups(outcomes, lambda job: job.sort),
        kinds=kinds_used(replays, nodes, last),
        use=_use(replays, last, SLOTS if devices else (DeviceKind.CPU,)),
        reasons=(),
    )


MOST_STRETCH = 20
"""A trace takes at most so many times as long as it would if nothing waited: failures are drawn
for so long."""
BINS = 120
"""Points of the plot of use."""


def _edges(replays: Sequence[Replay], kinds: Sequence[DeviceKind]) -> tuple[Floats, Floats]:
    """When what is held of some kinds changes, over all partitions, and by how much."""
    at: list[float] = []
    by: list[float] = []
    for replay in replays:
        before = 0.0
        for use in replay.use:
            held = sum(use.held.get(kind, 0) for kind in kinds)
            if held != before:
                at.append(use.at_s)
                by.append(held - before)
                before = held
    order = np.argsort(np.array(at), kind="stable")
    return np.array(at)[order], np.cumsum(np.array(by)[order])


def _use(
    replays: Sequence[Replay], last_s: float, kinds: Sequence[DeviceKind]
) -> tuple[tuple[float, float], ...]:
    """Devices in use, averaged over equal spans."""
    at, held = _edges(replays, kinds)
    if not last_s or not len(at):
        return ()
    spans = np.diff(at, append=max(last_s, at[-1]))
    done = np.concatenate([[0.0], np.cumsum(held * spans)])  # device-seconds before each change
    edges = np.linspace(0.0, last_s, BINS + 1)
    work = np.interp(edges, np.append(at, max(last_s, at[-1])), done)
    mean = np.diff(work) / np.maximum(np.diff(edges), 1e-9) / MILLI
    middles = (edges[1:] + edges[:-1]) / 2 / 86_400
    return tuple(zip(middles.round(3).tolist(), mean.round(2).tolist(), strict=True))


def kinds_used(
    replays: Sequence[Replay], nodes: Sequence[Node], last_s: float
) -> tuple[KindUse, ...]:
    """The share of each kind that was held, on average and at most."""
    found = []
    for kind, size in sorted(capacity_of(empty_pool(nodes)).items()):
        at, held = _edges(replays, (kind,))
        if not len(at) or not last_s:
            continue
        spans = np.diff(at, append=max(last_s, at[-1]))
        found.append(
            KindUse(
                kind=kind,
                size=in_units(kind, size),
                mean_pct=100 * float((held * spans).sum()) / (size * last_s),
                peak_pct=100 * float(held.max()) / size,
            )
        )
    return tuple(found)


def _groups(outcomes: Sequence[Outcome], key: Callable[[TraceJob], str]) -> tuple[GroupTimes, ...]:
    split: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        split.setdefault(key(outcome.job), []).append(outcome)
    return tuple(
        GroupTimes(
            name=name,
            jct_s=_times([outcome.jct_s for outcome in mine]),
            queued_s=_times([outcome.queued_s for outcome in mine]),
        )
        for name, mine in sorted(split.items())
    )


def _times(values: Sequence[float]) -> Times:
    p50, p90, p99 = (float(value) for value in np.percentile(values, (50, 90, 99)))
    return Times(
        jobs=len(values),
        mean=float(np.mean(values)),
        p50=p50,
        p90=p90,
        p99=p99,
        max=float(np.max(values)),
    )
