"""Elastic gangs take what nobody needs, worker by worker, and give it back when asked."""

import math
from typing import Final

from karez.core.resources import Grant, NodeId
from karez.core.workloads import Topology, WorkloadId
from karez.scheduling.floor import Floor, Run
from karez.scheduling.place import extend, need_of
from karez.scheduling.quota import more_workers

SETTLE_S: Final = 600.0
"""A gang that has just changed its size is left alone for so long: a change costs it a pause."""


def grow(floor: Floor, now: float) -> list[tuple[WorkloadId, tuple[Grant, ...]]]:
    """New grants of those that get more workers: who has least of what it could comes first."""
    sized = (floor.running[ident] for ident in floor.elastic)
    growing = [run for run in sized if _may_grow(run, now)]
    changed: dict[WorkloadId, tuple[Grant, ...]] = {}
    for run in sorted(growing, key=_fullness):
        more = _more(floor, run)
        if more:
            grants = (*run.workers, *more, *(grant for grant in run.grants if grant.role))
            floor.resize(run.id, grants, now)
            changed[run.id] = grants
    return list(changed.items())


def _may_grow(run: Run, now: float) -> bool:
    if run.waiting is None or run.waiting.gang.max is None or now - run.started_at < SETTLE_S:
        return False
    return len(run.workers) < run.waiting.gang.most


def _fullness(run: Run) -> tuple[float, WorkloadId]:
    most = run.waiting.gang.most if run.waiting else 1
    return (len(run.workers) / most, run.id)


def _more(floor: Floor, run: Run) -> tuple[Grant, ...]:
    if run.waiting is None:
        return ()
    gang = run.waiting.gang
    need = need_of(gang, run.workers[0])
    missing = gang.most - len(run.workers)
    count = max(0, more_workers(run.project, need, missing, floor.projects, floor.used))
    until = None if run.waiting.can_stop else run.ends_by or math.inf
    held = frozenset(grant.node for grant in run.workers)
    if gang.topology == Topology.SPREAD:
        found: tuple[Grant, ...] = ()
        for _ in range(count):
            avoid = held | {grant.node for grant in found}
            more = extend(need, 1, floor.pool, avoid=avoid, among=gang.among, until=until)
            if not more:
                break
            found += more
        return found
    outside = _outside(floor, held) if gang.topology == Topology.REQUIRE_SUPERNODE else frozenset()
    return extend(need, count, floor.pool, avoid=outside, among=gang.among, until=until)


def _outside(floor: Floor, held: frozenset[NodeId]) -> frozenset[NodeId]:
    """Nodes of other supernodes than those that it stands in."""
    pool = floor.pool
    domain = pool.inventory.arrays.domain
    own = {int(domain[pool.numbers[node]]) for node in held if node in pool.numbers}
    return frozenset(place.id for n, place in enumerate(pool.places) if int(domain[n]) not in own)
