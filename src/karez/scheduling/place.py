"""Which devices a gang runs on. Pure: the same free pool gives the same answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from karez.core.resources import Grant, Need, NodeId
from karez.core.workloads import GangSpec, Topology
from karez.scheduling.pool import FreeNode, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """`grants[rank]` is what worker `rank` holds."""

    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplaced:
    """Why a gang does not fit, in words for the one who asked."""

    reason: str
    best: int = 0
    """The most workers that fit at once."""


def place(gang: GangSpec, pool: Pool) -> Placed | Unplaced:
    """Place as many workers as wanted, at least the minimum, or none at all.

    All workers of a gang get the same alternative: the one that does most work per second, the
    earlier one on ties. The pool keeps what was taken if it succeeds and is unchanged if not.
    """
    best: tuple[float, int, list[Grant]] | None = None
    counts: list[tuple[Need, int]] = []
    for order, need in enumerate(gang.each):
        taken = _take(gang, need, pool)
        counts.append((need, len(taken)))
        pool.give_back(taken)
        if len(taken) >= gang.min:
            speed = len(taken) * need.speed
            if best is None or speed > best[0]:
                best = (speed, order, taken)
    if best is None:
        return _refuse(gang, counts, pool)
    need = gang.each[best[1]]
    return Placed(grants=tuple(_take(gang, need, pool)))


def extend(need: Need, count: int, pool: Pool, *, avoid: frozenset[NodeId]) -> tuple[Grant, ...]:
    """Up to `count` more workers of one alternative, anywhere but on the nodes to avoid."""
    grants: list[Grant] = []
    for node in _ordered(list(pool.nodes.values()), need):
        while node.id not in avoid and len(grants) < count and node.fits(need):
            grants.append(node.take(need))
    return tuple(grants)


def _take(gang: GangSpec, need: Need, pool: Pool) -> list[Grant]:
    """Grants for one alternative, taken from the pool."""
    room = {node.id: node.fits(need) for node in pool.nodes.values()}
    nodes = [node for node in pool.nodes.values() if room[node.id]]
    if gang.topology == Topology.SPREAD:
        return _spread(gang, need, nodes)
    if gang.topology != Topology.ANY:
        block = _tightest_supernode(gang.want, nodes, room)
        if block or gang.topology == Topology.REQUIRE_SUPERNODE:
            fallback = block or _roomiest_supernode(nodes, room)
            return _fill(gang.want, need, fallback, room)
    return _fill(gang.want, need, nodes, room)


def _fill(
    want: int, need: Need, nodes: Sequence[FreeNode], room: Mapping[NodeId, int]
) -> list[Grant]:
    """Fewest nodes: largest first, but the tightest that holds the rest last."""
    grants: list[Grant] = []
    left = sorted(nodes, key=lambda node: (-room[node.id], node.id))
    while left and len(grants) < want:
        missing = want - len(grants)
        enough = [node for node in left if room[node.id] >= missing]
        node = min(enough, key=lambda node: (room[node.id], node.id)) if enough else left[0]
        left.remove(node)
        for _ in range(min(missing, room[node.id])):
            grants.append(node.take(need))
    return grants


def _spread(gang: GangSpec, need: Need, nodes: Sequence[FreeNode]) -> list[Grant]:
    """One worker per node at most."""
    return [node.take(need) for node in _ordered(nodes, need)[: gang.want]]


def _ordered(nodes: Sequence[FreeNode], need: Need) -> list[FreeNode]:
    return sorted(nodes, key=lambda node: (-node.fits(need), node.id))


def _supernodes(nodes: Sequence[FreeNode]) -> dict[str, list[FreeNode]]:
    groups: dict[str, list[FreeNode]] = {}
    for node in nodes:
        groups.setdefault(node.supernode, []).append(node)
    return groups


def _tightest_supernode(
    want: int, nodes: Sequence[FreeNode], room: Mapping[NodeId, int]
) -> list[FreeNode]:
    sizes = {
        name: sum(room[node.id] for node in group) for name, group in _supernodes(nodes).items()
    }
    fitting = [name for name, size in sizes.items() if size >= want]
    if not fitting:
        return []
    return _supernodes(nodes)[min(fitting, key=lambda name: (sizes[name], name))]


def _roomiest_supernode(nodes: Sequence[FreeNode], room: Mapping[NodeId, int]) -> list[FreeNode]:
    groups = _supernodes(nodes)
    if not groups:
        return []
    name = min(groups, key=lambda name: (-sum(room[node.id] for node in groups[name]), name))
    return groups[name]


def _refuse(gang: GangSpec, counts: Sequence[tuple[Need, int]], pool: Pool) -> Unplaced:
    parts = []
    for need, count in counts:
        having = [node for node in pool.nodes.values() if need.kind in node.free]
        if not having:
            parts.append(f"no node has {need.kind} devices")
            continue
        full = sum(not node.fits(need) for node in having)
        parts.append(
            f"{count} of {gang.min} workers fit ({need.show()} each; "
            f"{full} of {len(having)} {need.kind} nodes have no room)"
        )
    shut = ", ".join(f"{count} {state}" for state, count in sorted(pool.shut.items()))
    reason = "; or ".join(parts) + (f"; nodes out of use: {shut}" if shut else "")
    if gang.topology in (Topology.SPREAD, Topology.REQUIRE_SUPERNODE):
        reason += f"; topology is {gang.topology}"
    return Unplaced(reason=reason, best=max((count for _, count in counts), default=0))
