"""Placement of gangs: which devices a gang runs on. Pure: equal free pools give equal answers."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from karez.core.gangs import SPARE, GangSpec, Topology
from karez.core.grants import Grant
from karez.core.node_affinity import ANYWHERE, NodeAffinity
from karez.core.nodes import NodeId
from karez.core.resource_requests import ResourceRequest
from karez.scheduling.placement.capacity import Pool
from karez.scheduling.placement.inventory import Ints
from karez.scheduling.placement.worker_shares import fill, worker_shares


def place_gang(gang: GangSpec, pool: Pool, until: float | None = None) -> tuple[Grant, ...] | None:
    """Allocate as many workers as wanted, at least the minimum, and every role whole.

    All workers of a gang get the same alternative: the one that does most work per second, the
    earlier one on ties. None, and nothing allocated, if the gang does not fit; `explain_unplaced`
    has the reason. `until` is when the gang ends, if that must be before a node's maintenance.
    """
    workers = _place_workers(gang, pool, until)
    if workers is None or not (gang.roles or gang.spares):
        return workers
    roles = _place_roles(gang, pool, until)
    if roles is None:
        pool.release(workers)
        if len(workers) == gang.min:
            return None
        return _place_fewest(gang, pool, until)
    return (*workers, *roles, *place_spares(gang, workers, pool, until))


def _place_fewest(gang: GangSpec, pool: Pool, until: float | None) -> tuple[Grant, ...] | None:
    """Allocate the fewest workers, then the roles, and more workers only after that."""
    workers = _place_workers(replace(gang, want=gang.min, max=None), pool, until)
    if workers is None:
        return None
    roles = _place_roles(gang, pool, until)
    if roles is None:
        pool.release(workers)
        return None
    if gang.topology in (Topology.ANY, Topology.PREFER_SUPERNODE):
        need = workers[0].need_among(gang.each)
        missing = gang.want - len(workers)
        workers = (*workers, *place_more(need, missing, pool, among=gang.among, until=until))
    return (*workers, *roles, *place_spares(gang, workers, pool, until))


def _place_roles(gang: GangSpec, pool: Pool, until: float | None) -> tuple[Grant, ...] | None:
    """Allocate every role whole, or nothing."""
    allocated: list[Grant] = []
    for role in gang.roles:
        part = GangSpec(
            min=role.workers,
            want=role.workers,
            each=role.each,
            among=role.among,
            topology=Topology.ANY,
        )
        grants = _place_workers(part, pool, until, role.name)
        if grants is None:
            pool.release(allocated)
            return None
        allocated += grants
    return tuple(allocated)


def place_spares(
    gang: GangSpec, grants: Sequence[Grant], pool: Pool, until: float | None
) -> tuple[Grant, ...]:
    """Allocate as many spares as fit, first on nodes that hold no worker of the gang."""
    if not gang.spares:
        return ()
    need = grants[0].need_among(gang.each)
    room = pool.room(need, gang.among, until)
    apart = room.copy()
    apart[[pool.number_of[grant.node] for grant in grants]] = 0
    first = fill(gang.spares, apart, np.arange(len(room)))
    rest = fill(gang.spares - int(first.sum()), room - first, np.arange(len(room)))
    return _grant(need, first + rest, pool, SPARE)


def _place_workers(
    gang: GangSpec, pool: Pool, until: float | None, role: str = ""
) -> tuple[Grant, ...] | None:
    best: tuple[float, ResourceRequest, Ints] | None = None
    for need in gang.each:
        shares = worker_shares(gang, need, pool, until)
        count = 0 if shares is None else int(shares.sum())
        is_better = best is None or count * need.speed > best[0]
        if shares is not None and count >= gang.min and is_better:
            best = (count * need.speed, need, shares)
    if best is None:
        return None
    _, need, shares = best
    if int(shares.sum()) == 1 and gang.topology != Topology.SPREAD:
        best_node = pool.best_node(need, gang.among, until)
        if best_node is not None:
            node, slot = best_node
            return (pool.allocate(node, need, slot, role),)
    return _grant(need, shares, pool, role)


def fits(gang: GangSpec, pool: Pool, until: float | None = None) -> bool:
    """Whether the gang's minimum fits, by the room of each node alone.

    True may still be wrong where a supernode is required, or roles compete for the same room.
    """
    for role in gang.roles:
        rooms = (pool.room(need, role.among, until).sum() for need in role.each)
        if not any(room >= role.workers for room in rooms):
            return False
    for need in gang.each:
        room = pool.room(need, gang.among, until)
        count = (room > 0).sum() if gang.topology == Topology.SPREAD else room.sum()
        if count >= gang.min:
            return True
    return False


def place_more(
    need: ResourceRequest,
    count: int,
    pool: Pool,
    *,
    avoid: frozenset[NodeId] = frozenset(),
    among: NodeAffinity = ANYWHERE,
    until: float | None = None,
) -> tuple[Grant, ...]:
    """Allocate up to `count` more workers of one alternative, on any node but those to avoid."""
    room = pool.room(need, among, until)
    for node in avoid:
        if node in pool.number_of:
            room[pool.number_of[node]] = 0
    return _grant(need, fill(count, room, np.arange(len(room))), pool)


def _grant(need: ResourceRequest, shares: Ints, pool: Pool, role: str = "") -> tuple[Grant, ...]:
    nodes = np.flatnonzero(shares)
    order = nodes[np.argsort(-shares[nodes], kind="stable")]
    return tuple(
        pool.allocate(number, need, role=role)
        for number in order.tolist()
        for _ in range(int(shares[number]))
    )
