"""Elastic scale-up: gangs with a maximum get more workers while devices are idle."""

import math
from typing import Final

from karez.core.gangs import Topology
from karez.core.grants import Grant
from karez.core.nodes import NodeId
from karez.core.workloads import WorkloadId
from karez.scheduling.cluster_state import ClusterState, RunningWorkload
from karez.scheduling.placement.placement import place_more
from karez.scheduling.queue.quota import more_workers

RESIZE_S: Final = 5.0
"""Seconds that a change of size costs a gang. Measured on karez's recovery of small models: 1 to
3 s for a new generation and a new process (docs/scheduling.md)."""

OLD_COOLDOWN_S: Final = 600.0
"""Least seconds between two changes of a gang's size, in karez 0.2."""


def scale_up(
    cluster: ClusterState, now: float, *, by_gain: bool
) -> list[tuple[WorkloadId, tuple[Grant, ...]]]:
    """Give idle devices to elastic gangs, those furthest below their maximum first.

    `by_gain` lets a gang grow as soon as that pays; else ten minutes after its last change.

    Returns the new grants of each gang that changed.
    """
    sized = (cluster.running[ident] for ident in cluster.elastic)
    growing = [run for run in sized if _may_scale_up(cluster, run, now)]
    changed: dict[WorkloadId, tuple[Grant, ...]] = {}
    for run in sorted(growing, key=_fill_ratio):
        more = _more_grants(cluster, run)
        least_s = break_even_s(len(run.workers), len(more) or 1) if by_gain else OLD_COOLDOWN_S
        if more and now - run.started_at < least_s:
            cluster.pool.release(more)
        elif more:
            grants = (*run.workers, *more, *(grant for grant in run.grants if grant.role))
            cluster.resize(run.id, grants, now)
            changed[run.id] = grants
    return list(changed.items())


def break_even_s(workers: int, more: int) -> float:
    """How long more workers have to work until they have made up for the pause of a gang.

    A gang that has kept its size for as long grows: so, whatever comes, idle devices and pauses
    together cost at most twice what they had to (as renting skis until they are paid for).
    """
    return RESIZE_S * max(1.0, workers / more)


def _may_scale_up(cluster: ClusterState, run: RunningWorkload, now: float) -> bool:
    if run.waiting is None or run.waiting.gang.max is None or run.project in cluster.over_budget:
        return False
    return now - run.started_at >= RESIZE_S and len(run.workers) < run.waiting.gang.most


def _fill_ratio(run: RunningWorkload) -> tuple[float, WorkloadId]:
    most = run.waiting.gang.most if run.waiting else 1
    return (len(run.workers) / most, run.id)


def _more_grants(cluster: ClusterState, run: RunningWorkload) -> tuple[Grant, ...]:
    if run.waiting is None:
        return ()
    gang = run.waiting.gang
    need = run.workers[0].need_among(gang.each)
    missing = gang.most - len(run.workers)
    count = max(0, more_workers(run.project, need, missing, cluster.projects, cluster.used))
    until = None if run.waiting.can_stop else run.ends_by or math.inf
    held = frozenset(grant.node for grant in run.workers)
    if gang.topology == Topology.SPREAD:
        added: tuple[Grant, ...] = ()
        for _ in range(count):
            avoid = held | {grant.node for grant in added}
            more = place_more(need, 1, cluster.pool, avoid=avoid, among=gang.among, until=until)
            if not more:
                break
            added += more
        return added
    outside = (
        _other_supernodes(cluster, held)
        if gang.topology == Topology.REQUIRE_SUPERNODE
        else frozenset()
    )
    return place_more(need, count, cluster.pool, avoid=outside, among=gang.among, until=until)


def _other_supernodes(cluster: ClusterState, held: frozenset[NodeId]) -> frozenset[NodeId]:
    """Nodes outside the supernodes of the held nodes."""
    pool = cluster.pool
    domain = pool.inventory.arrays.domain
    own = {int(domain[pool.number_of[node]]) for node in held if node in pool.number_of}
    return frozenset(node.id for n, node in enumerate(pool.nodes) if int(domain[n]) not in own)
