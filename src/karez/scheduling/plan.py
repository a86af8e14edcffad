"""From a snapshot of the cloud to the next decisions. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from karez.core.identity import Project
from karez.core.resources import Node
from karez.core.workloads import Allocation
from karez.scheduling.desk import Decision, Desk, Run, Wait
from karez.scheduling.line import Rules, Waiting
from karez.scheduling.pool import free_pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A workload that holds devices."""

    allocation: Allocation
    project: str
    ends_by: float | None = None
    waiting: Waiting | None = None
    """As it stood in line; None if it must not be stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The cloud at one moment: nothing in it changes."""

    nodes: Sequence[Node] = ()
    waiting: Sequence[Waiting] = ()
    running: Sequence[Running] = ()
    projects: Mapping[str, Project] = field(default_factory=dict)


def plan(snapshot: Snapshot, *, now: float, rules: Rules | None = None) -> tuple[Decision, ...]:
    """Start what fits, in the order of the line; say of everything else why it waits.

    The first that does not fit holds a reservation: once its patience is over, a later one passes
    only if the first then still starts as early as it could.
    """
    desk = desk_of(snapshot, rules or Rules())
    decisions = desk.decide(now)
    waits = [Wait(id=ident, reason=reason) for ident, reason in desk.reasons().items()]
    return (*decisions, *waits)


def desk_of(snapshot: Snapshot, rules: Rules) -> Desk:
    """A desk that stands where the cloud stands."""
    held = [grant for run in snapshot.running for grant in run.allocation.grants]
    desk = Desk(pool=free_pool(snapshot.nodes, held), rules=rules, projects=dict(snapshot.projects))
    for run in snapshot.running:
        desk.carry(
            Run(
                id=run.allocation.workload,
                project=run.project,
                grants=run.allocation.grants,
                ends_by=run.ends_by,
                started_at=run.allocation.since,
                waiting=run.waiting,
            )
        )
    for waiting in snapshot.waiting:
        desk.add(waiting)
    return desk
