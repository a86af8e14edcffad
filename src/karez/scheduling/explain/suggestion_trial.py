"""Trials of suggested changes on a copy of the pool: would the workload start?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from karez.core.devices import DeviceKind
from karez.core.explanations import SuggestedChange
from karez.core.gangs import Topology
from karez.scheduling.engine import SchedulingEngine
from karez.scheduling.explain.hypothetical import gang_after, nodes_after, project_after
from karez.scheduling.placement.capacity import Pool
from karez.scheduling.placement.placement import fits, place_gang
from karez.scheduling.placement.pool_builder import free_pool
from karez.scheduling.queue.order import PendingWorkload
from karez.scheduling.queue.quota import charge, within_quota
from karez.scheduling.snapshot import Snapshot

SuggestedChanges = Iterator[tuple[SuggestedChange, tuple[str, ...]]]
"""Changes to try, each with its description in parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestionContext:
    """A pending workload, in a cluster where all that could start has started."""

    snapshot: Snapshot
    engine: SchedulingEngine
    waiting: PendingWorkload
    priority: int | None
    """The priority that would put it first in the queue; None if it is first."""
    until: float | None = None
    """When the workload ends, if that must be before a node's maintenance."""
    now: float = 0.0


def would_start(context: SuggestionContext, change: SuggestedChange) -> bool:
    """Whether the workload fits once it is first in the queue and the change is made."""
    engine, name = context.engine, context.waiting.project
    if name in engine.cluster.over_budget and not change.spend:
        return False
    gang = gang_after(context.waiting.gang, change)
    projects = dict(engine.cluster.projects)
    if name in projects:
        projects[name] = project_after(projects[name], change)
    gang, barred = within_quota(
        replace(context.waiting, gang=gang), projects, _used_after(context, change)
    )
    if barred:
        return False
    pool = _pool_after(context, change)
    if not fits(gang, pool, context.until):
        return False
    is_sure = gang.topology != Topology.REQUIRE_SUPERNODE and not gang.roles
    return is_sure or place_gang(gang, pool, context.until) is not None


def _used_after(
    context: SuggestionContext, change: SuggestedChange
) -> Mapping[tuple[str, DeviceKind], int]:
    used = dict(context.engine.cluster.used)
    for ident in change.stop:
        run = context.engine.cluster.running[ident]
        charge(used, run.project, run.grants, -1)
    return used


def _pool_after(context: SuggestionContext, change: SuggestedChange) -> Pool:
    if change.uncordon or change.add or change.unplan:
        held = [
            grant
            for run in context.engine.cluster.running.values()
            if run.id not in change.stop
            for grant in run.grants
        ]
        return free_pool(nodes_after(context.snapshot.nodes, change), held, now=context.now)
    pool = context.engine.cluster.pool.fork()
    for ident in change.stop:
        pool.release(context.engine.cluster.running[ident].grants)
    return pool
