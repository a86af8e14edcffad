"""Defragmentation: which running workloads to relocate, where to, and at what cost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from karez.core.explanations import DefragResult, RelocatedWorkload
from karez.core.gangs import GangSpec
from karez.core.grants import Grant
from karez.core.nodes import NodeId
from karez.core.units import MILLI
from karez.core.workloads import WorkloadId
from karez.scheduling.cluster_state import ClusterState, RunningWorkload, devices_of
from karez.scheduling.placement.capacity import Pool
from karez.scheduling.placement.inventory import CPU, Ints
from karez.scheduling.placement.placement import place_gang

MAX_RELOCATIONS: Final = 16
"""Most workloads that one plan relocates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relocation:
    """The move of one workload from one set of grants to another."""

    id: WorkloadId
    project: str
    leaves: tuple[Grant, ...]
    takes: tuple[Grant, ...]
    cost_device_s: float
    """Device-seconds that the workload loses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefragPlan:
    """Relocations that together free devices: all of them or none."""

    relocations: tuple[Relocation, ...]
    grants: tuple[Grant, ...] = ()
    """Grants of the gang that the plan was made for."""
    freed_nodes: tuple[NodeId, ...] = ()
    """Nodes that are empty afterwards."""

    @property
    def cost_device_s(self) -> float:
        """Device-seconds that all relocations lose."""
        return sum(move.cost_device_s for move in self.relocations)


def plan_defrag_for(
    cluster: ClusterState, gang: GangSpec, until: float | None, now: float
) -> DefragPlan | None:
    """Plan relocations that let a gang start now, clearing the cheapest nodes first.

    Only preemptible workloads that resume are relocated. The cluster state is not changed.
    """
    pool = cluster.pool.fork()
    movable = {run.id: run for run in cluster.running.values() if _can_relocate(run)}
    displaced: list[RunningWorkload] = []
    grants: tuple[Grant, ...] | None = None
    for ident in _by_node(movable.values(), pool, now):
        pool.release(movable[ident].grants)
        displaced.append(movable[ident])
        grants = place_gang(gang, pool, until)
        if grants is not None or len(displaced) == MAX_RELOCATIONS:
            break
    if grants is None:
        return None
    moves = _place_displaced(displaced, pool, now)
    return None if moves is None else DefragPlan(relocations=moves, grants=grants)


def _can_relocate(run: RunningWorkload) -> bool:
    return run.can_stop and run.waiting is not None and run.waiting.resumes


def _by_node(runs: Iterable[RunningWorkload], pool: Pool, now: float) -> list[WorkloadId]:
    """Workloads node by node; nodes with the least cost per device gained first."""
    on_node: dict[NodeId, list[RunningWorkload]] = {}
    for run in runs:
        for node in {grant.node for grant in run.grants if grant.node in pool.number_of}:
            on_node.setdefault(node, []).append(run)
    total = pool.inventory.arrays.total

    def cost(node: NodeId) -> tuple[float, NodeId]:
        gained = sum(
            grant.milli for run in on_node[node] for grant in run.grants if grant.node == node
        ) + int(total[pool.number_of[node]])
        return (sum(run.stop_cost_device_s(now) for run in on_node[node]) / max(1, gained), node)

    order = [run.id for node in sorted(on_node, key=cost) for run in on_node[node]]
    return list(dict.fromkeys(order))


def _place_displaced(
    displaced: Sequence[RunningWorkload], pool: Pool, now: float
) -> tuple[Relocation, ...] | None:
    """Place displaced workloads: on their own grants if still free; None if one does not fit."""
    away = []
    for run in displaced:
        if pool.is_free(run.grants):
            pool.reserve(run.grants)
        else:
            away.append(run)
    moves = []
    for run in sorted(away, key=lambda run: (-devices_of(run.grants), run.id)):
        takes = _place_elsewhere(run, pool)
        if takes is None:
            return None
        moves.append(_relocation(run, takes, now))
    return tuple(moves)


def _relocation(run: RunningWorkload, takes: tuple[Grant, ...], now: float) -> Relocation:
    return Relocation(
        id=run.id,
        project=run.project,
        leaves=run.grants,
        takes=takes,
        cost_device_s=run.stop_cost_device_s(now),
    )


def _place_elsewhere(
    run: RunningWorkload, pool: Pool, off: tuple[str, ...] = ()
) -> tuple[Grant, ...] | None:
    """Allocate as many workers as a run has now, off some nodes."""
    if run.waiting is None:
        return None
    gang, count = run.waiting.gang, len(run.workers)
    on = tuple(word for word in gang.among.on if word not in off)
    if gang.among.on and not on:
        return None
    among = replace(gang.among, on=on, off=tuple(dict.fromkeys((*gang.among.off, *off))))
    same = (run.workers[0].need_among(gang.each),)  # another kind could be over its quota
    return place_gang(replace(gang, min=count, want=count, max=count, among=among, each=same), pool)


def plan_defrag(cluster: ClusterState, now: float) -> DefragPlan:
    """Plan to clear little-used nodes whose workloads fit on other nodes in use.

    The cost is reported; the caller decides.
    """
    pool = cluster.pool.fork()
    runs = {run.id: run for run in cluster.running.values()}
    moves: list[Relocation] = []
    freed: list[NodeId] = []
    for node in _least_used(pool):
        here = [run for run in runs.values() if any(grant.node == node for grant in run.grants)]
        if not here or not all(_can_relocate(run) for run in here):
            continue
        if len(moves) + len(here) > MAX_RELOCATIONS:
            break
        trial = pool.fork()
        made = _clear(node, here, trial, (*freed, node), now)
        if made is None:
            continue
        pool = trial
        freed.append(node)
        moves += made
        for move in made:
            runs[move.id] = replace(runs[move.id], grants=move.takes)
    return DefragPlan(relocations=_merged(moves), freed_nodes=tuple(freed))


def _least_used(pool: Pool) -> list[NodeId]:
    """Partly used nodes, the emptiest first; full nodes are best left full."""
    held, left = _in_use(pool)
    order = sorted(range(len(pool.nodes)), key=lambda number: (int(held[number]), number))
    return [pool.nodes[n].id for n in order if held[n] > 0 and left[n] >= MILLI]


def _in_use(pool: Pool) -> tuple[Ints, Ints]:
    """(N,) thousandths held and free of each node's accelerators, or of its cores without any."""
    inventory = pool.inventory
    size, left = inventory.size.sum(1), inventory.arrays.total
    cores, free = inventory.bulk_size[:, CPU], inventory.arrays.bulk[:, CPU]
    has = size > 0
    return np.where(has, size - left, cores - free), np.where(has, left, free)


def _clear(
    node: NodeId, here: Sequence[RunningWorkload], pool: Pool, off: tuple[str, ...], now: float
) -> list[Relocation] | None:
    """Move all that is on a node to nodes that are in use already."""
    for run in here:
        pool.release(run.grants)
    held, _ = _in_use(pool)
    used = {pool.nodes[n].id for n in range(len(pool.nodes)) if held[n] > 0}
    empty = tuple(str(place.id) for place in pool.nodes if place.id not in used)
    moves = []
    for run in sorted(here, key=lambda run: (-devices_of(run.grants), run.id)):
        takes = _place_elsewhere(run, pool, tuple(dict.fromkeys((*off, *empty, str(node)))))
        if takes is None:
            return None
        moves.append(_relocation(run, takes, now))
    return moves


def _merged(moves: Sequence[Relocation]) -> tuple[Relocation, ...]:
    """Merge successive relocations of a workload into one."""
    merged: dict[WorkloadId, Relocation] = {}
    for move in moves:
        before = merged.get(move.id)
        merged[move.id] = move if before is None else replace(before, takes=move.takes)
    return tuple(merged.values())


def defrag_result(plan: DefragPlan, *, carried_out: bool) -> DefragResult:
    """A plan as people are shown it."""
    moves = tuple(
        RelocatedWorkload(
            id=move.id,
            project=move.project,
            leaves=tuple(dict.fromkeys(grant.node for grant in move.leaves)),
            takes=tuple(dict.fromkeys(grant.node for grant in move.takes)),
            lost_device_s=move.cost_device_s,
        )
        for move in plan.relocations
    )
    return DefragResult(
        moves=moves,
        freed=plan.freed_nodes,
        lost_device_s=plan.cost_device_s,
        carried_out=carried_out,
    )
