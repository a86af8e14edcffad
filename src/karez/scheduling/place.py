"""Which devices a gang runs on. Pure: the same free pool gives the same answer."""

from dataclasses import dataclass, replace

import numpy as np

from karez.core.resources import DeviceKind, Grant, Need, NodeId
from karez.core.workloads import GangSpec, Topology
from karez.scheduling.inventory import MEMORY, Ints
from karez.scheduling.pool import SLOTS, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How far the pool could go along with one alternative."""

    need: Need
    workers: int
    """The most that fit at once."""
    having: int
    """Nodes with devices of the kind."""
    too_few: int
    """Of those, nodes whose free devices do not do for one worker."""
    no_memory: int
    """Of those, nodes that would do but for their free memory."""


def seat(gang: GangSpec, pool: Pool) -> tuple[Grant, ...] | None:
    """Places for as many workers as wanted, at least the minimum, or None and nothing taken.

    All workers of a gang get the same alternative: the one that does most work per second, the
    earlier one on ties. `refuse` has the reason for a None.
    """
    best: tuple[float, Need, Ints] | None = None
    for need in gang.each:
        shares = _shares(gang, need, pool)
        count = 0 if shares is None else int(shares.sum())
        is_better = best is None or count * need.speed > best[0]
        if shares is not None and count >= gang.min and is_better:
            best = (count * need.speed, need, shares)
    if best is None:
        return None
    _, need, shares = best
    if int(shares.sum()) == 1 and gang.topology != Topology.SPREAD:
        found = pool.best(need)
        if found is not None:
            return (pool.take(found[0], need, found[1]),)
    return _grant(need, shares, pool)


def fits(gang: GangSpec, pool: Pool) -> bool:
    """Whether the gang's minimum would find places, by the room of the nodes alone.

    True may still be wrong where a supernode is required.
    """
    for need in gang.each:
        room = pool.room(need)
        count = (room > 0).sum() if gang.topology == Topology.SPREAD else room.sum()
        if count >= gang.min:
            return True
    return False


def extend(need: Need, count: int, pool: Pool, *, avoid: frozenset[NodeId]) -> tuple[Grant, ...]:
    """Up to `count` more workers of one alternative, anywhere but on the nodes to avoid."""
    room = pool.room(need)
    for node in avoid:
        if node in pool.numbers:
            room[pool.numbers[node]] = 0
    return _grant(need, _fill(count, room, np.arange(len(room))), pool)


def _grant(need: Need, shares: Ints, pool: Pool) -> tuple[Grant, ...]:
    nodes = np.flatnonzero(shares)
    order = nodes[np.argsort(-shares[nodes], kind="stable")]
    return tuple(
        pool.take(number, need) for number in order.tolist() for _ in range(int(shares[number]))
    )


def _shares(gang: GangSpec, need: Need, pool: Pool) -> Ints | None:
    """(N,) how many workers each node would get of this alternative; None if too few fit at all.

    Fewest supernodes, the tightest last; in each, fewest nodes, the tightest last. Filling the
    roomiest first is optimal in their number, since only the sum of their room counts.
    """
    room = pool.room(need)
    if room.sum() < gang.min:
        return None
    if gang.want == 1:
        return _one(1, room)
    if gang.topology == Topology.SPREAD:
        chosen = np.argsort(-room, kind="stable")[: gang.want]
        shares = np.zeros_like(room)
        shares[chosen] = np.minimum(room[chosen], 1)
        return shares
    domain = pool.inventory.arrays.domain
    per_domain = np.zeros(len(pool.inventory.arrays.busy), np.int64)
    np.add.at(per_domain, domain, room)
    if gang.topology == Topology.REQUIRE_SUPERNODE:
        quota = _one(gang.want, per_domain)
    else:
        quota = _fill(gang.want, per_domain, np.arange(len(per_domain)))
    shares = np.zeros_like(room)
    for number in np.flatnonzero(quota).tolist():
        members = pool.inventory.members[number]
        shares[members] = _fill(int(quota[number]), room[members], members)
    return shares


def _fill(want: int, room: Ints, order: Ints) -> Ints:
    """How many each bin gets: whole bins from the roomiest on, the rest to the tightest that do."""
    shares = np.zeros_like(room)
    by_room = np.lexsort((order, -room))
    filled = np.cumsum(room[by_room])
    whole = int(np.searchsorted(filled, want, side="left"))  # bins that are used up, all of them
    shares[by_room[:whole]] = room[by_room[:whole]]
    missing = want - int(filled[whole - 1]) if whole else want
    left = by_room[whole:]
    fitting = left[room[left] >= missing]
    if missing > 0 and len(fitting):
        last = fitting[np.lexsort((order[fitting], room[fitting]))[0]]
        shares[last] = missing
    return shares


def _one(want: int, room: Ints) -> Ints:
    """All in the tightest bin that holds them, else as many as the roomiest has room for."""
    shares = np.zeros_like(room)
    if not len(room):
        return shares
    fitting = np.flatnonzero(room >= want)
    chosen = fitting[room[fitting].argmin()] if len(fitting) else room.argmax()
    shares[chosen] = min(want, int(room[chosen]))
    return shares


def hurdle(gang: GangSpec, need: Need, pool: Pool) -> Fit:
    """How far the pool goes along with one alternative, and which nodes it rules out."""
    arrays, shape = pool.inventory.arrays, pool.shape(need)
    shares = _shares(replace(gang, min=1), need, pool)
    if need.kind in SLOTS:
        right = ((shape.models >> arrays.model) & 1 == 1) & (pool.inventory.size > 0)
        having = right.any(1)
    else:
        having = pool.inventory.bulk_size[:, 0] > 0
    bare = Need(kind=need.kind, milli=need.milli)
    enough = having & (pool.room(bare) > 0)
    short = enough & (arrays.bulk[:, MEMORY] < need.memory_bytes)
    return Fit(
        need=need,
        workers=0 if shares is None else int(shares.sum()),
        having=int(having.sum()),
        too_few=int((having & ~enough).sum()),
        no_memory=int(short.sum()),
    )


def refuse(gang: GangSpec, pool: Pool) -> str:
    """Why a gang finds no place in a pool as it is."""
    found = tuple(hurdle(gang, need, pool) for need in gang.each)
    parts = [_say(gang, fit) for fit in found]
    shut = ", ".join(f"{count} {state}" for state, count in sorted(pool.shut.items()))
    reason = "; or ".join(parts) + (f"; nodes out of use: {shut}" if shut else "")
    if gang.topology in (Topology.SPREAD, Topology.REQUIRE_SUPERNODE):
        reason += f"; topology is {gang.topology}"
    return reason


def _say(gang: GangSpec, fit: Fit) -> str:
    kind = DeviceKind(fit.need.kind)
    if not fit.having:
        return f"no node has {kind} devices"
    said = f"{fit.workers} of {gang.min} workers fit ({fit.need.show()} each; "
    hurdles = [f"{fit.too_few} of {fit.having} {kind} nodes have no room"]
    if fit.no_memory:
        hurdles.append(f"{fit.no_memory} too little memory")
    return said + ", ".join(hurdles) + ")"
