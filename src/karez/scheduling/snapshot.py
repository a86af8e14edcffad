"""Snapshots of the cluster, and the decisions that follow from one. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from karez.core.identity import Project
from karez.core.nodes import Node, NodeState
from karez.core.workloads import Allocation
from karez.scheduling.cluster_state import ClusterState, RunningWorkload
from karez.scheduling.decisions import Decision, Wait
from karez.scheduling.engine import SchedulingEngine
from karez.scheduling.placement.pool_builder import free_pool
from karez.scheduling.queue.fair_share import FairShare
from karez.scheduling.queue.order import PendingWorkload, SchedulingPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatedWorkload:
    """A running workload and its allocation."""

    allocation: Allocation
    project: str
    ends_by: float | None = None
    waiting: PendingWorkload | None = None
    """The workload as it was in the queue, if that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The cluster at one moment."""

    nodes: Sequence[Node] = ()
    waiting: Sequence[PendingWorkload] = ()
    running: Sequence[AllocatedWorkload] = ()
    projects: Mapping[str, Project] = field(default_factory=dict)
    usage_s: Mapping[str, float] = field(default_factory=dict)
    """Decayed seconds of the whole pool that each project used, as queue.fair_share counts them."""
    usage_at: float = 0.0
    over_budget: Mapping[str, str] = field(default_factory=dict)
    """Project that may spend no more -> why."""


def plan(
    snapshot: Snapshot, *, now: float, policy: SchedulingPolicy | None = None
) -> tuple[Decision, ...]:
    """Decide what starts, in queue order, and explain why everything else waits.

    The first workload that does not fit gets a reservation after `reserve_after_s`: then a later
    one passes only if the first still starts as early as it could.
    """
    engine = engine_from(snapshot, policy or SchedulingPolicy(), now)
    decisions = engine.decide(now)
    waits = [Wait(id=ident, reason=reason) for ident, reason in engine.reasons().items()]
    return (*decisions, *waits)


DRAIN_S = 120.0
"""How long before maintenance a node is drained: a preempted job has 30 s to end its step."""


def engine_from(snapshot: Snapshot, policy: SchedulingPolicy, now: float = 0.0) -> SchedulingEngine:
    """Build an engine from a snapshot."""
    held = [grant for run in snapshot.running for grant in run.allocation.grants]
    cluster = ClusterState(
        pool=free_pool(snapshot.nodes, held, now=now),
        projects=dict(snapshot.projects),
        draining=frozenset(node.id for node in snapshot.nodes if should_drain(node, now)),
        fair_share=FairShare(usage_s=dict(snapshot.usage_s), at=snapshot.usage_at or now),
        over_budget=dict(snapshot.over_budget),
    )
    engine = SchedulingEngine(cluster=cluster, policy=policy)
    for run in snapshot.running:
        cluster.add(to_running(run))
    for waiting in snapshot.waiting:
        engine.add(waiting)
    return engine


def to_running(run: AllocatedWorkload) -> RunningWorkload:
    """Convert an allocated workload to a running one."""
    return RunningWorkload(
        id=run.allocation.workload,
        project=run.project,
        grants=run.allocation.grants,
        ends_by=run.ends_by,
        started_at=run.allocation.since,
        waiting=run.waiting,
    )


def should_drain(node: Node, now: float) -> bool:
    """Whether preemptible workloads have to leave a node now."""
    if node.state != NodeState.READY:
        return node.state == NodeState.DRAINING
    return any(w.starts_at - DRAIN_S <= now < w.ends_at for w in node.windows)
