"""Jobs of a trace through the production desk: when each starts, is stopped and ends.

Time jumps from event to event: an arrival, an end, a node that fails or comes back, or a look at
what has fallen back in line.
"""

import heapq
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from karez.core.identity import Project
from karez.core.resources import DeviceKind, Grant, Node, NodeId, NodeState, ResourceRequest
from karez.core.units import MILLI
from karez.core.workloads import GangSpec, WorkloadId
from karez.scheduling.decision_log import ClusterDelta, RecordedEngine, format_decision
from karez.scheduling.decisions import Action, Preempt, Resize, Start
from karez.scheduling.engine import RESCAN_S, SchedulingEngine
from karez.scheduling.explain.feasibility import empty_pool, infeasible_reason
from karez.scheduling.placement.capacity import SLOTS, Pool
from karez.scheduling.placement.node_selector import NodeSelector
from karez.scheduling.placement.placement import place_gang
from karez.scheduling.placement.request_mix import request_mix
from karez.scheduling.placement.scores import Policy
from karez.scheduling.queue.order import RESTART_S, PendingWorkload, QueueOrder, SchedulingPolicy
from karez.simulation.failures import Outage
from karez.simulation.inventories import PROJECT
from karez.simulation.workloads import TraceJob

RESIZE_S = 5.0
"""What a change of size costs a gang. Measured on this code's recovery of small models: 1 to 3 s
for a new generation and a new process (docs/scheduling.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One job's fate."""

    job: TraceJob
    started_s: float
    """When it first ran."""
    ended_s: float
    preemptions: int
    interruptions: int = 0
    """How often a node failed under it."""

    @property
    def jct_s(self) -> float:
        """Job completion time: from arrival to end."""
        return self.ended_s - self.job.arrives_s

    @property
    def queued_s(self) -> float:
        """Time not spent running, restarts included."""
        return max(0.0, self.jct_s - self.job.runs_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What was held from an instant on, of each kind in the kind's unit."""

    at_s: float
    held: Mapping[DeviceKind, int]


@dataclass(slots=True, kw_only=True)
class _Job:
    """A job under way."""

    job: TraceJob
    waiting: PendingWorkload
    left_s: float
    """Work to do, in seconds with all the workers it wants, at speed 1."""
    pace: float = 1.0
    started_at: float = 0.0
    first_s: float | None = None
    version: int = 0
    preemptions: int = 0
    interruptions: int = 0
    grants: tuple[Grant, ...] = ()

    def stop(self, now: float) -> None:
        """It holds nothing any more; what it did stays done if it can go on from there."""
        if self.job.resumes:
            self.left_s = max(0.0, self.left_s - max(0.0, now - self.started_at) * self.pace)
            self.left_s += RESTART_S
        else:
            self.left_s = self.job.runs_s
        self.version += 1
        self.grants = ()


@dataclass(slots=True, kw_only=True)
class Replay:
    """One partition of the pool and the jobs that go there."""

    engine_log: RecordedEngine
    nodes: Sequence[Node]
    jobs: Sequence[TraceJob]
    known: bool
    on_end: Callable[[], object]
    kinds: tuple[DeviceKind, ...]
    """What jobs run on that do not say: the kinds of accelerators that the nodes have."""
    outages: Sequence[Outage] = ()
    on_step: Callable[[SchedulingEngine, float], object] | None = None
    """Sees the desk after every step."""
    first: ClusterDelta = field(default_factory=lambda: ClusterDelta(at=0.0, is_reset=True))
    use: list[Use] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    """Their lines: the log of a live cloud that was told the same is the same."""
    preemptions: int = 0
    resizes: int = 0
    _under_way: dict[WorkloadId, _Job] = field(default_factory=dict)
    _ends: list[tuple[float, int, WorkloadId]] = field(default_factory=list)
    _held: Counter[DeviceKind] = field(default_factory=Counter)
    _down: dict[NodeId, int] = field(default_factory=dict)

    @property
    def engine(self) -> SchedulingEngine:
        """It changes when nodes do."""
        return self.engine_log.engine

    def run(self) -> list[Outcome]:
        """Until every job has ended."""
        outcomes: list[Outcome] = []
        arrived, look_at, out = 0, math.inf, 0
        edges = sorted((at, is_end, node) for o in self.outages for at, is_end, node in o.edges)
        while arrived < len(self.jobs) or self._under_way:
            arrives = self.jobs[arrived].arrives_s if arrived < len(self.jobs) else math.inf
            ends = self._next_end()
            fails = edges[out][0] if out < len(edges) else math.inf
            now = min(arrives, ends, look_at, fails)
            if now == math.inf:
                break  # what is left cannot start: nothing would ever change
            done: list[WorkloadId] = []
            while self._ends and self._ends[0][0] <= now:
                outcomes += self._end(*heapq.heappop(self._ends), done)
            came = []
            while arrived < len(self.jobs) and self.jobs[arrived].arrives_s <= now:
                came.append(self._arrive(arrived))
                arrived += 1
            step = replace(self.first, at=now, ended=tuple(done), arrived=tuple(came))
            self.first = ClusterDelta(at=0.0)
            if fails <= now:
                while out < len(edges) and edges[out][0] <= now:
                    self._edge(edges[out][1], NodeId(edges[out][2]))
                    out += 1
                step = self._without_nodes(step, now)
            self._advance(step)
            is_watching = self.engine.policy.preempts and self.engine.pending_count
            look_at = now + RESCAN_S if is_watching and self.engine.cluster.running else math.inf
            look_at = min(look_at, now + RESCAN_S if self._may_grow() else math.inf)
        return outcomes

    def _next_end(self) -> float:
        """When something ends next: what was stopped in the meantime does not."""
        while self._ends:
            at, version, ident = self._ends[0]
            found = self._under_way.get(ident)
            if found is not None and found.version == version:
                return at
            heapq.heappop(self._ends)
        return math.inf

    def _may_grow(self) -> bool:
        cluster = self.engine.cluster
        return self.engine.policy.elastic and any(
            len(cluster.running[ident].workers) < cluster.running[ident].as_pending.gang.most
            for ident in cluster.elastic
        )

    def _arrive(self, number: int) -> PendingWorkload:
        job = self.jobs[number]
        waiting = PendingWorkload(
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
        self._under_way[waiting.id] = _Job(job=job, waiting=waiting, left_s=job.runs_s)
        return waiting

    def _end(
        self, at: float, version: int, ident: WorkloadId, done: list[WorkloadId]
    ) -> list[Outcome]:
        found = self._under_way.get(ident)
        if found is None or found.version != version or found.first_s is None:
            return []  # it was stopped in the meantime
        del self._under_way[ident]
        done.append(ident)
        self._book(found.grants, -1)
        self.on_end()
        return [
            Outcome(
                job=found.job,
                started_s=found.first_s,
                ended_s=at,
                preemptions=found.preemptions,
                interruptions=found.interruptions,
            )
        ]

    def _edge(self, is_end: bool, node: NodeId) -> None:
        self._down[node] = self._down.get(node, 0) + (-1 if is_end else 1)

    def _without_nodes(self, step: ClusterDelta, now: float) -> ClusterDelta:
        """Nodes failed or came back: what ran on those that failed stands in line again."""
        down = {node for node, count in self._down.items() if count > 0}
        lost: list[WorkloadId] = []
        again: list[PendingWorkload] = []
        for ident, found in self._under_way.items():
            if any(grant.node in down for grant in found.grants):
                run = self.engine.cluster.running[ident]
                done_s = run.done_s(now) if found.job.resumes else 0.0
                self._book(found.grants, -1)
                found.stop(now)
                found.interruptions += 1
                lost.append(ident)
                again.append(replace(found.waiting, done_s=done_s))
        nodes = tuple(
            replace(node, state=NodeState.LOST) if node.id in down else node for node in self.nodes
        )
        return replace(
            step, nodes=nodes, ended=(*step.ended, *lost), arrived=(*again, *step.arrived)
        )

    def _advance(self, step: ClusterDelta) -> None:
        now = step.at
        acts = self.engine_log.advance(step)
        for act in acts:
            self.decisions.append(format_decision(now, act))
            self._carry_out(act, now)
        self.use.append(Use(at_s=now, held=dict(self._held)))
        if self.on_step is not None:
            self.on_step(self.engine, now)

    def _carry_out(self, act: Action, now: float) -> None:
        found = self._under_way[act.id]
        match act:
            case Start(grants=grants):
                found.first_s = now if found.first_s is None else found.first_s
                self._go(found, grants, now)
            case Preempt():
                self._book(found.grants, -1)
                found.stop(now)
                found.preemptions += 1
                self.preemptions += 1
            case Resize(grants=grants):
                worked_s = max(0.0, now - found.started_at)
                found.left_s = max(0.0, found.left_s - worked_s * found.pace)
                self._book(found.grants, -1)
                found.version += 1
                self.resizes += 1
                self._go(found, grants, now, pause_s=RESIZE_S)

    def _go(self, found: _Job, grants: tuple[Grant, ...], now: float, pause_s: float = 0.0) -> None:
        run = self.engine.cluster.running.get(found.waiting.id)
        found.pace = run.work_rate if run is not None else 1.0
        found.started_at, found.grants = now + pause_s, grants
        self._book(grants, 1)
        ends = now + pause_s + found.left_s / found.pace
        heapq.heappush(self._ends, (ends, found.version, found.waiting.id))

    def _book(self, grants: Sequence[Grant], sign: int) -> None:
        for grant in grants:
            for kind, amount in grant.amounts.items():
                self._held[kind] += sign * amount


NODE_DEVICES = 8
"""Devices of one node in the traces that are read here."""


def gang_of(devices: int, kinds: Sequence[DeviceKind]) -> GangSpec:
    """A trace's job as a gang: one worker up to a node's devices, else several of equal size."""
    each = devices if devices <= NODE_DEVICES else math.gcd(devices, NODE_DEVICES)
    needs = tuple(ResourceRequest(kind=kind, milli=each * MILLI) for kind in kinds)
    return GangSpec(min=devices // each, want=devices // each, each=needs)


def partitions(
    nodes: Sequence[Node], jobs: Sequence[TraceJob]
) -> Mapping[str, tuple[Sequence[Node], Sequence[TraceJob]]]:
    """Nodes and jobs by project, where projects have nodes of their own; "" is for the others."""
    owned: dict[str, list[Node]] = {}
    for node in nodes:
        owned.setdefault(node.labels.get(PROJECT, ""), []).append(node)
    split: dict[str, list[TraceJob]] = {}
    for job in jobs:
        split.setdefault(job.project if job.project in owned else "", []).append(job)
    return {
        name: (owned.get(name, ()), split.get(name, ())) for name in owned.keys() | split.keys()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What happens beside the jobs of a replay, and who hears of it."""

    on_end: Callable[[], object]
    outages: Sequence[Outage] = ()
    write: Callable[[str], object] | None = None
    projects: Mapping[str, Project] = field(default_factory=dict)


def replay_of(
    nodes: Sequence[Node],
    jobs: Sequence[TraceJob],
    rules: SchedulingPolicy,
    hooks: Hooks,
    *,
    known: bool,
) -> tuple[Replay, int]:
    """A replay of one partition, and how many jobs were left out: no empty pool would hold them."""
    there = {device.kind for node in nodes for device in node.devices}
    kinds = tuple(kind for kind in SLOTS if kind in there)
    policy = Policy.KAREZ if rules.order == QueueOrder.KAREZ else Policy.BEST_FIT
    fitting = _fitting(nodes, jobs, kinds)
    shapes = [job.gang for job in fitting if job.gang is not None]

    def selector(engine: SchedulingEngine) -> NodeSelector:
        pool = engine.cluster.pool
        asked = [pool.shape(gang.each[0]) for gang in shapes]
        return NodeSelector(inventory=pool.inventory, mix=request_mix(asked), policy=policy)

    first = ClusterDelta(
        at=0.0,
        is_reset=True,
        nodes=tuple(nodes),
        policy=rules,
        projects=tuple(hooks.projects.values()) or None,
    )
    engine_log = RecordedEngine(write=hooks.write, make_selector=selector)
    replay = Replay(
        engine_log=engine_log,
        nodes=nodes,
        jobs=fitting,
        known=known,
        on_end=hooks.on_end,
        kinds=kinds,
        outages=hooks.outages,
        first=first,
    )
    return replay, len(jobs) - len(fitting)


def _fitting(
    nodes: Sequence[Node], jobs: Sequence[TraceJob], kinds: Sequence[DeviceKind]
) -> list[TraceJob]:
    """Jobs whose gang would find room in the empty pool."""
    empty = empty_pool(nodes)
    verdicts: dict[GangSpec, bool] = {}
    found = []
    for job in jobs:
        if job.gang is None and not kinds:
            continue
        try:
            gang = job.gang or gang_of(job.devices, kinds)
        except ValueError:
            continue  # more workers than a gang may have
        if gang not in verdicts:
            verdicts[gang] = not infeasible_reason(gang, empty) and _ever_fits(gang, empty)
        if verdicts[gang]:
            found.append(job)
    return found


def _ever_fits(gang: GangSpec, empty: Pool) -> bool:
    return place_gang(gang, empty.fork()) is not None
