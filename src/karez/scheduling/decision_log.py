"""Decision log: the input and decisions of an engine, line by line, so that a replay repeats them.

The live cloud and a replay write the same log. A line that starts with `{` is one input, a
`ClusterDelta`; any other line is a decision.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from karez.core.codec import from_json, rename_keys, to_brief_text
from karez.core.gangs import GangSpec
from karez.core.grants import Grant
from karez.core.identity import Project
from karez.core.nodes import Node
from karez.core.resource_requests import ResourceRequest
from karez.core.units import MILLI
from karez.core.workloads import WorkloadId
from karez.scheduling.cluster_state import ClusterState, RunningWorkload
from karez.scheduling.decisions import Action, Preempt, Start
from karez.scheduling.engine import SchedulingEngine
from karez.scheduling.placement.pool_builder import free_pool
from karez.scheduling.placement.scores import Policy
from karez.scheduling.preemption.defragment import Relocation
from karez.scheduling.queue.fair_share import FairShare
from karez.scheduling.queue.order import PendingWorkload, QueueOrder, SchedulingPolicy
from karez.scheduling.snapshot import DRAIN_S, should_drain
from karez.scheduling.state_changes import relocate_workloads

LEARN_S: Final = 600.0
"""Seconds between two looks at what is asked for: each drops the scores of all nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relocate:
    """Target grants for a running workload."""

    id: WorkloadId
    to: tuple[Grant, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedRequest:
    """How many workers usually ask for a need."""

    need: ResourceRequest
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterDelta:
    """Changes since the previous step. Absent nodes, limits and policy stay as they are."""

    at: float
    is_reset: bool = False
    """Whether to start from an empty engine."""
    nodes: tuple[Node, ...] | None = None
    projects: tuple[Project, ...] | None = None
    policy: SchedulingPolicy | None = None
    over_budget: Mapping[str, str] | None = None
    """Projects that may spend no more, and why."""
    usage_s: Mapping[str, float] | None = None
    """Decayed usage of each project; see karez.scheduling.queue.fair_share."""
    released: tuple[Grant, ...] = ()
    """Released grants of workloads outside the queue: replacements of lost ranks."""
    ended: tuple[WorkloadId, ...] = ()
    """Workloads that ended."""
    withdrawn: tuple[WorkloadId, ...] = ()
    """Workloads removed from the queue before they started."""
    reserved: tuple[Grant, ...] = ()
    """Grants made outside the queue."""
    running: tuple[RunningWorkload, ...] = ()
    """Workloads found running."""
    arrived: tuple[PendingWorkload, ...] = ()
    """Workloads new in the queue."""
    relocations: tuple[Relocate, ...] = ()
    """Running workloads to restart on other grants."""
    expected: tuple[ExpectedRequest, ...] | None = None
    """What workers usually ask for, by which nodes are scored from now on."""


_OLD_KEYS: Final = {
    "fresh": "is_reset",
    "had": "usage_s",
    "given": "released",
    "left": "withdrawn",
    "taken": "reserved",
    "holds": "running",
    "came": "arrived",
    "moves": "relocations",
    "rules": "policy",
}
_OLD_POLICY_KEYS: Final = {"moves": "defragments", "patience_s": "reserve_after_s"}


def parse_delta(line: str) -> ClusterDelta:
    """Parse an input line, also one that karez 0.1 wrote with its older keys.

    Raises:
        ValueError: The line is not a delta.
    """
    fields = rename_keys(json.loads(line), _OLD_KEYS)
    if isinstance(fields, dict) and "policy" in fields:
        fields["policy"] = rename_keys(fields["policy"], _OLD_POLICY_KEYS)
    return from_json(ClusterDelta, fields)


def normalize_decision(line: str) -> str:
    """Convert a decision line of karez 0.1, which wrote `stop` for `preempt`."""
    at, word, rest = [*line.split(" ", 2), "", ""][:3]
    return f"{at} preempt {rest}" if word == "stop" else line


def format_decision(at: float, act: Action) -> str:
    """Format a decision as a log line."""
    match act:
        case Start(id=ident, grants=grants):
            return f"{at!r} start {ident} on {_grants_text(grants)}"
        case Preempt(id=ident, by=by):
            return f"{at!r} preempt {ident} for {by or 'its node'}"
        case _:
            reason = f" for {act.by}" if act.by else ""
            return f"{at!r} resize {act.id} to {_grants_text(act.grants)}{reason}"


def _grants_text(grants: Sequence[Grant]) -> str:
    return " ".join(_grant_text(grant) for grant in grants)


def _grant_text(grant: Grant) -> str:
    words = [_devices_text(grant.kind, grant.devices)] if grant.devices else []
    words += [_devices_text("cpu", grant.cores)] if grant.cores else []
    for name, amount in (
        ("dpu", grant.dpu_milli),
        ("memory", grant.memory_bytes),
        ("storage", grant.storage_bytes),
    ):
        words += [f"{name}={amount}"] if amount else []
    role = f"({grant.role})" if grant.role else ""
    return f"{grant.node}{role}/{'+'.join(words)}"


def _devices_text(kind: str, devices: Sequence[tuple[int, int]]) -> str:
    numbers = (f"{i}" if milli == MILLI else f"{i}*{milli}" for i, milli in devices)
    return f"{kind}:{','.join(numbers)}"


@dataclass(slots=True, kw_only=True)
class RecordedEngine:
    """An engine that is updated step by step, and logs each step and its decisions."""

    write: Callable[[str], object] | None = None
    """Writes one log line; None: no log."""
    learns: bool = False
    """Whether to add what is expected to a step from time to time: a replay is told it instead."""
    scores: Policy | None = None
    """How to score nodes; None: as the order of the queue demands."""
    engine: SchedulingEngine = field(default_factory=lambda: _empty_engine())
    _nodes: tuple[Node, ...] = ()
    _reserved: list[Grant] = field(default_factory=list)
    """Grants made outside the queue."""
    _unreported: list[Grant] = field(default_factory=list)
    """Those of `_reserved` that no log line has yet."""
    _recheck_at: float = float("inf")
    """When a maintenance window next starts to drain, starts or ends."""
    _expected: dict[ResourceRequest, int] | None = None
    _learned_at: float = float("-inf")

    def advance(self, step: ClusterDelta) -> list[Action]:
        """Apply a step to the engine, and decide."""
        if self.learns and (step.is_reset or step.at - self._learned_at >= LEARN_S):
            self._learned_at = step.at
            step = replace(step, expected=self._requests_with(step))
        if self.write is not None:
            self.write(to_brief_text(replace(step, reserved=(*self._unreported, *step.reserved))))
        self._unreported.clear()
        self._apply(step)
        targets = {move.id: move.to for move in step.relocations}
        acts = relocate_workloads(self.engine.cluster, targets, step.at)
        acts += self.engine.decide(step.at)
        if self.write is not None:
            for act in acts:
                self.write(format_decision(step.at, act))
        return acts

    def relocate(self, moves: Sequence[Relocation], at: float) -> list[Action]:
        """Relocate running workloads at an operator's request."""
        step = ClusterDelta(
            at=at, relocations=tuple(Relocate(id=move.id, to=move.takes) for move in moves)
        )
        return self.advance(step)

    def note_reserved(self, grants: Sequence[Grant]) -> None:
        """Record grants that were made from the engine's pool between two steps."""
        self._reserved += grants
        self._unreported += grants

    def _requests_with(self, step: ClusterDelta) -> tuple[ExpectedRequest, ...]:
        """What all workloads ask for once a step is applied, ended ones included."""
        known = Counter() if step.is_reset else self.engine.gangs()
        known.update(waiting.gang for waiting in step.arrived)
        known.update(run.waiting.gang for run in step.running if run.waiting is not None)
        return expected_requests(known)

    def _apply(self, step: ClusterDelta) -> None:
        if step.is_reset:
            self.engine, self._nodes, self._reserved = _empty_engine(), (), []
            self._expected = None
        self._apply_limits(step)
        engine = self.engine
        if step.released:
            for grant in step.released:
                self._reserved.remove(grant)
            engine.cluster.pool.release(step.released)
            engine.invalidate()
        for ident in step.ended:
            engine.finish(ident)
        for ident in step.withdrawn:
            engine.remove(ident)
        if step.nodes is not None or step.at >= self._recheck_at:
            self._nodes = self._nodes if step.nodes is None else step.nodes
            self._rebuild(step.at)
        if step.expected is not None:
            self._expected = {each.need: each.workers for each in step.expected}
        pool = self.engine.cluster.pool
        if self._expected is not None and (step.expected is not None or pool.mix is None):
            pool.expect(self._expected, self.scores or self._scores_by_order)
        self._apply_running(step)
        for waiting in step.arrived:
            self.engine.add(waiting)

    def _apply_limits(self, step: ClusterDelta) -> None:
        engine = self.engine
        if step.policy is not None and step.policy != engine.policy:
            engine.policy = step.policy
            engine.invalidate()
        if step.projects is not None:
            engine.cluster.projects = {project.name: project for project in step.projects}
            engine.invalidate()
        if step.over_budget is not None:
            engine.cluster.over_budget = dict(step.over_budget)
            engine.invalidate()

    def _apply_running(self, step: ClusterDelta) -> None:
        cluster = self.engine.cluster
        if step.usage_s is not None:
            cluster.fair_share.usage_s, cluster.fair_share.at = dict(step.usage_s), step.at
        cluster.pool.reserve(step.reserved)
        self._reserved += step.reserved
        for run in step.running:
            cluster.pool.reserve(run.grants)
            cluster.add(run)

    def _rebuild(self, now: float) -> None:
        """Replace the engine by one for the current nodes, with the same workloads."""
        before = self.engine
        self.engine = SchedulingEngine(
            cluster=self._cluster_of(before.cluster, now), policy=before.policy
        )
        for run in before.cluster.running.values():
            self.engine.cluster.add(run)
        for waiting in before.pending.values():
            self.engine.add(waiting)
        windows = [window for node in self._nodes for window in node.windows]
        edges = [t for w in windows for t in (w.starts_at - DRAIN_S, w.starts_at, w.ends_at)]
        self._recheck_at = min((edge for edge in edges if edge > now), default=float("inf"))

    @property
    def _scores_by_order(self) -> Policy:
        is_ours = self.engine.policy.order == QueueOrder.KAREZ
        return Policy.KAREZ if is_ours else Policy.BEST_FIT

    def _cluster_of(self, before: ClusterState, now: float) -> ClusterState:
        """Cluster state of the current nodes, without the running workloads themselves."""
        held = [grant for run in before.running.values() for grant in run.grants]
        return ClusterState(
            pool=free_pool(self._nodes, [*held, *self._reserved], now=now),
            projects=before.projects,
            over_budget=before.over_budget,
            draining=frozenset(node.id for node in self._nodes if should_drain(node, now)),
            fair_share=FairShare(usage_s=before.fair_share.usage_s, at=before.fair_share.at),
        )


def expected_requests(gangs: Mapping[GangSpec, int]) -> tuple[ExpectedRequest, ...]:
    """How many workers of these gangs ask for each need, by their first alternative."""
    workers: Counter[ResourceRequest] = Counter()
    for gang, number in gangs.items():
        workers[gang.each[0]] += gang.want * number
        for role in gang.roles:
            workers[role.each[0]] += role.workers * number
    return tuple(ExpectedRequest(need=need, workers=number) for need, number in workers.items())


def _empty_engine() -> SchedulingEngine:
    return SchedulingEngine(cluster=ClusterState(pool=free_pool((), ())))
