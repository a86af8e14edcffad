"""Jobs of a trace through the production desk: when each starts, is stopped and ends.

Time jumps from event to event: an arrival, an end, or a look at what has fallen back in line.
"""

import heapq
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from karez.core.resources import DeviceKind, Need, Node
from karez.core.units import MILLI
from karez.core.workloads import GangSpec, WorkloadId
from karez.scheduling.desk import LOOK_S, Desk, Preempt, Start
from karez.scheduling.finder import Finder
from karez.scheduling.line import RESTART_S, Order, Rules, Waiting
from karez.scheduling.mix import mix_of
from karez.scheduling.plan import Snapshot, desk_of
from karez.scheduling.pool import SLOTS
from karez.scheduling.scores import Policy
from karez.simulation.inventories import PROJECT
from karez.simulation.philly import TraceJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One job's fate."""

    job: TraceJob
    started_s: float
    """When it first ran."""
    ended_s: float
    preemptions: int

    @property
    def jct_s(self) -> float:
        """Job completion time: from arrival to end."""
        return self.ended_s - self.job.arrives_s

    @property
    def queued_s(self) -> float:
        """Time not spent running, restarts included."""
        return max(0.0, self.jct_s - self.job.runs_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """One decision: the log of a live cloud and of its replay are the same."""

    at_s: float
    what: str
    job: int
    devices: int


@dataclass(slots=True, kw_only=True)
class _Job:
    """A job under way."""

    job: TraceJob
    waiting: Waiting
    left_s: float
    started_at: float = 0.0
    first_s: float | None = None
    version: int = 0
    preemptions: int = 0


@dataclass(slots=True, kw_only=True)
class Replay:
    """One partition of the pool and the jobs that go there."""

    desk: Desk
    jobs: Sequence[TraceJob]
    known: bool
    on_end: Callable[[], None]
    kinds: tuple[DeviceKind, ...]
    """What jobs run on: the kinds of accelerators that the nodes have."""
    log: list[Logged] = field(default_factory=list)
    _under_way: dict[WorkloadId, _Job] = field(default_factory=dict)
    _ends: list[tuple[float, int, WorkloadId]] = field(default_factory=list)

    def run(self) -> list[Outcome]:
        """Until every job has ended."""
        outcomes: list[Outcome] = []
        arrived, look_at = 0, float("inf")
        while arrived < len(self.jobs) or self._ends:
            arrives = self.jobs[arrived].arrives_s if arrived < len(self.jobs) else float("inf")
            ends = self._ends[0][0] if self._ends else float("inf")
            now = min(arrives, ends, look_at)
            while self._ends and self._ends[0][0] <= now:
                outcomes += self._end(*heapq.heappop(self._ends))
            while arrived < len(self.jobs) and self.jobs[arrived].arrives_s <= now:
                self._arrive(arrived)
                arrived += 1
            self._decide(now)
            is_watching = self.desk.rules.preempts and self.desk.waiting and self.desk.floor.running
            look_at = now + LOOK_S if is_watching else float("inf")
        return outcomes

    def _arrive(self, number: int) -> None:
        job = self.jobs[number]
        waiting = Waiting(
            id=WorkloadId(str(number)),
            project=job.project,
            gang=gang_of(job.devices, self.kinds),
            priority=0,
            since=job.arrives_s,
            order=number,
            expected_s=job.runs_s if self.known else None,
        )
        self._under_way[waiting.id] = _Job(job=job, waiting=waiting, left_s=job.runs_s)
        self.desk.add(waiting)

    def _end(self, at: float, version: int, ident: WorkloadId) -> list[Outcome]:
        found = self._under_way.get(ident)
        if found is None or found.version != version or found.first_s is None:
            return []  # it was stopped in the meantime
        del self._under_way[ident]
        self.desk.finish(ident)
        self.on_end()
        return [
            Outcome(
                job=found.job,
                started_s=found.first_s,
                ended_s=at,
                preemptions=found.preemptions,
            )
        ]

    def _decide(self, now: float) -> None:
        for decision in self.desk.decide(now):
            found = self._under_way[decision.id]
            match decision:
                case Start():
                    found.started_at = now
                    found.first_s = now if found.first_s is None else found.first_s
                    heapq.heappush(self._ends, (now + found.left_s, found.version, decision.id))
                case Preempt():
                    found.left_s += RESTART_S - (now - found.started_at)
                    found.version += 1
                    found.preemptions += 1
            what = type(decision).__name__.lower()
            self.log.append(
                Logged(at_s=now, what=what, job=int(decision.id), devices=found.job.devices)
            )


NODE_DEVICES = 8
"""Devices of one node in the traces that are read here."""


def gang_of(devices: int, kinds: Sequence[DeviceKind]) -> GangSpec:
    """A trace's job as a gang: one worker up to a node's devices, else several of equal size."""
    each = devices if devices <= NODE_DEVICES else math.gcd(devices, NODE_DEVICES)
    needs = tuple(Need(kind=kind, milli=each * MILLI) for kind in kinds)
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


def replay_of(
    nodes: Sequence[Node],
    jobs: Sequence[TraceJob],
    rules: Rules,
    *,
    known: bool,
    on_end: Callable[[], None],
) -> tuple[Replay, int]:
    """A replay of one partition, and how many jobs were left out: larger than all its nodes."""
    there = {device.kind for node in nodes for device in node.devices}
    kinds = tuple(kind for kind in SLOTS if kind in there)
    sizes = [nodes_of(nodes, kind) for kind in kinds]
    fitting = [job for job in jobs if any(_ever_fits(job, each) for each in sizes)]
    desk = desk_of(Snapshot(nodes=nodes), rules)
    policy = Policy.KAREZ if rules.order == Order.KAREZ else Policy.BEST_FIT
    desk.floor.pool.finder = Finder(
        inventory=desk.floor.pool.inventory, mix=mix_of(()), policy=policy
    )
    replay = Replay(desk=desk, jobs=fitting, known=known, on_end=on_end, kinds=kinds)
    return replay, len(jobs) - len(fitting)


def nodes_of(nodes: Sequence[Node], kind: DeviceKind) -> Mapping[int, int]:
    """How many nodes have how many devices of a kind."""
    return Counter(sum(device.kind == kind for device in node.devices) for node in nodes)


def _ever_fits(job: TraceJob, sizes: Mapping[int, int]) -> bool:
    gang = gang_of(job.devices, (DeviceKind.GPU,))
    each = gang.each[0].milli // MILLI
    return sum(size // each * count for size, count in sizes.items()) >= gang.min
