"""Shares of a gang: how many of its workers each node gets, on few nodes and few supernodes."""

import numpy as np

from karez.core.gangs import GangSpec, Topology
from karez.core.resource_requests import ResourceRequest
from karez.scheduling.placement.capacity import Pool
from karez.scheduling.placement.inventory import Ints


def worker_shares(
    gang: GangSpec, need: ResourceRequest, pool: Pool, until: float | None = None
) -> Ints | None:
    """(N,) how many workers of this alternative each node would get; None if too few fit.

    Fewest supernodes, the tightest last; in each, fewest nodes, the tightest last. Filling the
    roomiest first is optimal in their number, since only the sum of their room counts.
    """
    room = pool.room(need, gang.among, until)
    if room.sum() < gang.min:
        return None
    if gang.want == 1:
        return fill_one(1, room)
    if gang.topology == Topology.SPREAD:
        chosen = np.argsort(-room, kind="stable")[: gang.want]
        shares = np.zeros_like(room)
        shares[chosen] = np.minimum(room[chosen], 1)
        return shares
    return _by_supernode(gang, room, pool)


def _by_supernode(gang: GangSpec, room: Ints, pool: Pool) -> Ints:
    """(N,) shares on the fewest supernodes, or on one if the topology requires that.

    Of those that hold the rest, one whose models others ask for less comes first.
    """
    domain = pool.inventory.arrays.domain
    per_domain = np.zeros(len(pool.inventory.arrays.busy), np.int64)
    np.add.at(per_domain, domain, room)
    if gang.topology == Topology.REQUIRE_SUPERNODE:
        quota = fill_one(gang.want, per_domain, pool.scarcity)
    else:
        quota = fill(gang.want, per_domain, np.arange(len(per_domain)), pool.scarcity)
    shares = np.zeros_like(room)
    for number in np.flatnonzero(quota).tolist():
        members = pool.inventory.members[number]
        shares[members] = fill(int(quota[number]), room[members], members)
    return shares


def fill(want: int, room: Ints, order: Ints, scarcity: Ints | None = None) -> Ints:
    """(bins,) how many each bin gets: roomiest bins whole, the rest in the tightest that fits.

    Bins of less scarcity come first where that keeps the number of bins.
    """
    shares = np.zeros_like(room)
    scarce = np.zeros_like(room) if scarcity is None else scarcity
    by_room = np.lexsort((order, scarce, -room))
    filled = np.cumsum(room[by_room])
    whole = int(np.searchsorted(filled, want, side="left"))  # bins that are used up
    shares[by_room[:whole]] = room[by_room[:whole]]
    missing = want - int(filled[whole - 1]) if whole else want
    left = by_room[whole:]
    fitting = left[room[left] >= missing]
    if missing > 0 and len(fitting):
        last = fitting[np.lexsort((order[fitting], room[fitting], scarce[fitting]))[0]]
        shares[last] = missing
    return shares


def fill_one(want: int, room: Ints, scarcity: Ints | None = None) -> Ints:
    """(bins,) all in the tightest bin that holds them, else as many as fit in the roomiest.

    Bins of less scarcity come first.
    """
    shares = np.zeros_like(room)
    if not len(room):
        return shares
    scarce = np.zeros_like(room) if scarcity is None else scarcity
    fitting = np.flatnonzero(room >= want)
    tightest = np.lexsort((room[fitting], scarce[fitting]))
    chosen = fitting[tightest[0]] if len(fitting) else room.argmax()
    shares[chosen] = min(want, int(room[chosen]))
    return shares
