"""From a snapshot of the cloud to the next decisions. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from karez.core.identity import Project
from karez.core.resources import Node, NodeState
from karez.core.workloads import Allocation
from karez.scheduling.desk import Decision, Desk, Wait
from karez.scheduling.fair import FairShare
from karez.scheduling.floor import Floor, Run
from karez.scheduling.line import Rules, Waiting
from karez.scheduling.pool import free_pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A workload that holds devices."""

    allocation: Allocation
    project: str
    ends_by: float | None = None
    waiting: Waiting | None = None
    """As it stood in line, if that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The cloud at one moment: nothing in it changes."""

    nodes: Sequence[Node] = ()
    waiting: Sequence[Waiting] = ()
    running: Sequence[Running] = ()
    projects: Mapping[str, Project] = field(default_factory=dict)
    had: Mapping[str, float] = field(default_factory=dict)
    """Seconds of the whole pool that each project had, as `karez.scheduling.fair` counts them."""
    had_at: float = 0.0


def plan(snapshot: Snapshot, *, now: float, rules: Rules | None = None) -> tuple[Decision, ...]:
    """Start what fits, in the order of the line; say of everything else why it waits.

    The first that does not fit holds a reservation: once its patience is over, a later one passes
    only if the first then still starts as early as it could.
    """
    desk = desk_of(snapshot, rules or Rules(), now)
    decisions = desk.decide(now)
    waits = [Wait(id=ident, reason=reason) for ident, reason in desk.reasons().items()]
    return (*decisions, *waits)


DRAIN_S = 120.0
"""How long before its maintenance a node is cleared: a job that yields has 30 s for its step."""


def desk_of(snapshot: Snapshot, rules: Rules, now: float = 0.0) -> Desk:
    """A desk that stands where the cloud stands."""
    held = [grant for run in snapshot.running for grant in run.allocation.grants]
    floor = Floor(
        pool=free_pool(snapshot.nodes, held, now=now),
        projects=dict(snapshot.projects),
        draining=frozenset(node.id for node in snapshot.nodes if drains(node, now)),
    )
    floor.fair = FairShare(
        capacity=floor.fair.capacity, had=dict(snapshot.had), at=snapshot.had_at or now
    )
    desk = Desk(floor=floor, rules=rules)
    for run in snapshot.running:
        floor.carry(run_of(run))
    for waiting in snapshot.waiting:
        desk.add(waiting)
    return desk


def run_of(run: Running) -> Run:
    """As a floor knows it."""
    return Run(
        id=run.allocation.workload,
        project=run.project,
        grants=run.allocation.grants,
        ends_by=run.ends_by,
        started_at=run.allocation.since,
        waiting=run.waiting,
    )


def drains(node: Node, now: float) -> bool:
    """Whether what can be moved is moved away from a node now."""
    if node.state != NodeState.READY:
        return node.state == NodeState.DRAINING
    return any(w.starts_at - DRAIN_S <= now < w.ends_at for w in node.windows)
