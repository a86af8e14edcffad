"""Which devices a gang runs on. Pure: the same free pool gives the same answer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from karez.core.devices import DeviceKind
from karez.core.gangs import SPARE, GangSpec, Topology
from karez.core.grants import Grant
from karez.core.node_affinity import ANYWHERE, NodeAffinity
from karez.core.nodes import NodeId
from karez.core.resource_requests import ResourceRequest
from karez.scheduling.placement.capacity import AMOUNTS, SLOTS, Bools, Pool
from karez.scheduling.placement.inventory import Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """How far the pool could go along with one alternative."""

    need: ResourceRequest
    workers: int
    """The most that fit at once."""
    nodes: Mapping[str, int] = field(default_factory=dict)
    """Nodes ruled out, by the first reason that rules each out."""
    having: int = 0
    """Nodes with devices of the kind and model."""


def place_gang(gang: GangSpec, pool: Pool, until: float | None = None) -> tuple[Grant, ...] | None:
    """Places for as many workers as wanted, at least the minimum, and for every role whole.

    All workers of a gang get the same alternative: the one that does most work per second, the
    earlier one on ties. None, and nothing taken, if there is no room; `refuse` has the reason.
    `until` is when it ends, if it must be over before a node's maintenance.
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
    """The fewest workers first, so that the roles find room, and more only then."""
    workers = _place_workers(replace(gang, want=gang.min, max=None), pool, until)
    if workers is None:
        return None
    roles = _place_roles(gang, pool, until)
    if roles is None:
        pool.release(workers)
        return None
    if gang.topology in (Topology.ANY, Topology.PREFER_SUPERNODE):
        need = need_of(gang, workers[0])
        missing = gang.want - len(workers)
        workers = (*workers, *place_more(need, missing, pool, among=gang.among, until=until))
    return (*workers, *roles, *place_spares(gang, workers, pool, until))


def _place_roles(gang: GangSpec, pool: Pool, until: float | None) -> tuple[Grant, ...] | None:
    """Every role whole, or nothing taken."""
    found: list[Grant] = []
    for role in gang.roles:
        part = GangSpec(
            min=role.workers,
            want=role.workers,
            each=role.each,
            among=role.among,
            topology=Topology.ANY,
        )
        places = _place_workers(part, pool, until, role.name)
        if places is None:
            pool.release(found)
            return None
        found += places
    return tuple(found)


def place_spares(
    gang: GangSpec, grants: Sequence[Grant], pool: Pool, until: float | None
) -> tuple[Grant, ...]:
    """As many spare places as fit: on nodes that hold no worker, where there are any."""
    if not gang.spares:
        return ()
    need = need_of(gang, grants[0])
    room = pool.room(need, gang.among, until)
    apart = room.copy()
    apart[[pool.number_of[grant.node] for grant in grants]] = 0
    first = _fill(gang.spares, apart, np.arange(len(room)))
    rest = _fill(gang.spares - int(first.sum()), room - first, np.arange(len(room)))
    return _grant(need, first + rest, pool, SPARE)


def need_of(gang: GangSpec, grant: Grant) -> ResourceRequest:
    """The alternative that a grant was made for."""
    same = (need for need in gang.each if grant.meets(need))
    return next(same, gang.each[0])


def _place_workers(
    gang: GangSpec, pool: Pool, until: float | None, role: str = ""
) -> tuple[Grant, ...] | None:
    best: tuple[float, ResourceRequest, Ints] | None = None
    for need in gang.each:
        shares = _shares(gang, need, pool, until)
        count = 0 if shares is None else int(shares.sum())
        is_better = best is None or count * need.speed > best[0]
        if shares is not None and count >= gang.min and is_better:
            best = (count * need.speed, need, shares)
    if best is None:
        return None
    _, need, shares = best
    if int(shares.sum()) == 1 and gang.topology != Topology.SPREAD:
        found = pool.best_node(need, gang.among, until)
        if found is not None:
            return (pool.allocate(found[0], need, found[1], role),)
    return _grant(need, shares, pool, role)


def fits(gang: GangSpec, pool: Pool, until: float | None = None) -> bool:
    """Whether the gang's minimum would find places, by the room of the nodes alone.

    True may still be wrong where a supernode is required, or roles want the same room.
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
    """Up to `count` more workers of one alternative, anywhere but on the nodes to avoid."""
    room = pool.room(need, among, until)
    for node in avoid:
        if node in pool.number_of:
            room[pool.number_of[node]] = 0
    return _grant(need, _fill(count, room, np.arange(len(room))), pool)


def _grant(need: ResourceRequest, shares: Ints, pool: Pool, role: str = "") -> tuple[Grant, ...]:
    nodes = np.flatnonzero(shares)
    order = nodes[np.argsort(-shares[nodes], kind="stable")]
    return tuple(
        pool.allocate(number, need, role=role)
        for number in order.tolist()
        for _ in range(int(shares[number]))
    )


def _shares(
    gang: GangSpec, need: ResourceRequest, pool: Pool, until: float | None = None
) -> Ints | None:
    """(N,) how many workers each node would get of this alternative; None if too few fit at all.

    Fewest supernodes, the tightest last; in each, fewest nodes, the tightest last. Filling the
    roomiest first is optimal in their number, since only the sum of their room counts.
    """
    room = pool.room(need, gang.among, until)
    if room.sum() < gang.min:
        return None
    if gang.want == 1:
        return _fill_one(1, room)
    if gang.topology == Topology.SPREAD:
        chosen = np.argsort(-room, kind="stable")[: gang.want]
        shares = np.zeros_like(room)
        shares[chosen] = np.minimum(room[chosen], 1)
        return shares
    domain = pool.inventory.arrays.domain
    per_domain = np.zeros(len(pool.inventory.arrays.busy), np.int64)
    np.add.at(per_domain, domain, room)
    if gang.topology == Topology.REQUIRE_SUPERNODE:
        quota = _fill_one(gang.want, per_domain)
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


def _fill_one(want: int, room: Ints) -> Ints:
    """All in the tightest bin that holds them, else as many as the roomiest has room for."""
    shares = np.zeros_like(room)
    if not len(room):
        return shares
    fitting = np.flatnonzero(room >= want)
    chosen = fitting[room[fitting].argmin()] if len(fitting) else room.argmax()
    shares[chosen] = min(want, int(room[chosen]))
    return shares


def fit_reports(gang: GangSpec, pool: Pool, until: float | None = None) -> tuple[FitReport, ...]:
    """How far the pool goes along with each alternative, and which nodes it rules out.

    The alternatives of a role follow if that role is what does not fit.
    """
    found = tuple(fit_report(gang, need, pool, until) for need in gang.each)
    if all(fit.workers < gang.min for fit in found):
        return found
    for role in gang.roles:
        part = GangSpec(min=role.workers, want=role.workers, each=role.each, among=role.among)
        stuck = tuple(fit_report(part, need, pool, until) for need in role.each)
        if all(fit.workers < role.workers for fit in stuck):
            return stuck
    return found


def fit_report(
    gang: GangSpec, need: ResourceRequest, pool: Pool, until: float | None = None
) -> FitReport:
    """How far the pool goes along with one alternative."""
    shares = _shares(replace(gang, min=1), need, pool, until)
    left: Bools = np.ones(len(pool.nodes), np.bool_)
    having, nodes = left, dict[str, int]()
    for reason, out in _filter_nodes(gang, need, pool, until):
        nodes[reason] = int((left & out).sum())
        left = left & ~out
        if reason.startswith("no "):
            having = having & ~out
    return FitReport(
        need=need,
        workers=0 if shares is None else int(shares.sum()),
        nodes={reason: count for reason, count in nodes.items() if count},
        having=int(having.sum()),
    )


def _filter_nodes(
    gang: GangSpec, need: ResourceRequest, pool: Pool, until: float | None
) -> Iterator[tuple[str, Bools]]:
    """(reason, the nodes that it rules out), what cannot be helped first."""
    arrays, shape = pool.inventory.arrays, pool.shape(need)
    allowed = pool.matching(gang.among)
    if allowed is not None:
        yield f"not {gang.among.show()}", ~allowed
    if need.kind in SLOTS:
        of_kind = (pool.inventory.size > 0) & (
            (pool.masks.get(need.kind, 0) >> arrays.model) & 1 == 1
        )
        yield f"no {need.kind} devices", ~of_kind.any(1)
        if need.models:
            right = of_kind & ((shape.models >> arrays.model) & 1 == 1)
            yield f"no {need.kind} of model {' or '.join(need.models)}", ~right.any(1)
        bare = ResourceRequest(kind=need.kind, milli=need.milli, models=need.models)
        yield f"too few free {need.kind}", pool.room(bare) == 0
    else:
        at = AMOUNTS.index(need.kind)
        yield f"no {need.kind} devices", pool.inventory.bulk_size[:, at] == 0
    for column, kind in enumerate(AMOUNTS):
        if amount := shape.bulk[column]:
            few = f"too few free {kind}" if kind == DeviceKind.CPU else f"too little free {kind}"
            yield few, arrays.bulk[:, column] < amount
    usable = pool.usable(gang.among, until)
    if usable is not None:
        yield "maintenance before it would end", ~usable


def explain_unplaced(gang: GangSpec, pool: Pool, until: float | None = None) -> str:
    """Why a gang finds no place in a pool as it is."""
    found = fit_reports(gang, pool, until)
    parts = [_say(gang.min, fit) for fit in found]
    shut = ", ".join(f"{count} {state}" for state, count in sorted(pool.unavailable.items()))
    reason = "; or ".join(parts) + (f"; nodes out of use: {shut}" if shut else "")
    if gang.topology in (Topology.SPREAD, Topology.REQUIRE_SUPERNODE):
        reason += f"; topology is {gang.topology}"
    if gang.roles and any(fit.workers >= gang.min for fit in found):
        reason += "; not all of its roles fit at once"
    return reason


def _say(workers: int, fit: FitReport) -> str:
    if not fit.having:
        model = f" of model {' or '.join(fit.need.models)}" if fit.need.models else ""
        return f"no node has {fit.need.kind} devices{model}"
    out = [f"{count} {why}" for why, count in fit.nodes.items() if not why.startswith("no ")]
    said = f"{fit.workers} of {workers} workers fit ({fit.need.show()} each"
    return said + (f"; nodes ruled out: {', '.join(out)})" if out else ")")
