"""What is free, as a value that placing may try things on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from karez.core.resources import DeviceKind, Grant, Health, Need, Node, NodeId, NodeState
from karez.core.units import MILLI

_USABLE = frozenset({Health.HEALTHY, Health.SUB_HEALTHY})


@dataclass(slots=True, kw_only=True)
class FreeNode:
    """One node's free thousandths per device, and free memory. Mutable: a scratch value."""

    id: NodeId
    supernode: str
    free: dict[DeviceKind, dict[int, int]]
    whole: dict[DeviceKind, int]
    """Thousandths of a whole device of each kind on this node."""
    memory_bytes: int

    def fits(self, need: Need) -> int:
        """How many workers of this need fit here now."""
        devices = self.free.get(need.kind, {})
        whole = self.whole.get(need.kind, MILLI)
        if need.milli < whole:
            count = sum(left // need.milli for left in devices.values())
        else:
            count = sum(left == whole for left in devices.values()) // (need.milli // whole)
        if need.memory_bytes:
            count = min(count, self.memory_bytes // need.memory_bytes)
        return count

    def take(self, need: Need) -> Grant:
        """Grant one worker, tightest fraction first, lowest index on ties. Call `fits` first."""
        devices = self.free[need.kind]
        whole = self.whole[need.kind]
        if need.milli < whole:
            fitting = (index for index, left in devices.items() if left >= need.milli)
            index = min(fitting, key=lambda index: (devices[index], index))
            chosen: tuple[tuple[int, int], ...] = ((index, need.milli),)
        else:
            full = sorted(index for index, left in devices.items() if left == whole)
            chosen = tuple((index, whole) for index in full[: need.milli // whole])
        for index, milli in chosen:
            devices[index] -= milli
        self.memory_bytes -= need.memory_bytes
        return Grant(node=self.id, kind=need.kind, devices=chosen, memory_bytes=need.memory_bytes)

    def give_back(self, grant: Grant) -> None:
        """Undo a grant."""
        devices = self.free.get(grant.kind, {})
        for index, milli in grant.devices:
            if index in devices:
                devices[index] += milli
        self.memory_bytes += grant.memory_bytes

    def hold(self, grant: Grant) -> None:
        """Count a grant that is held already; a device that has gone is passed over."""
        devices = self.free.get(grant.kind, {})
        for index, milli in grant.devices:
            if index in devices:
                devices[index] -= milli
        self.memory_bytes -= grant.memory_bytes


@dataclass(slots=True, kw_only=True)
class Pool:
    """All nodes that take work, by id."""

    nodes: dict[NodeId, FreeNode] = field(default_factory=dict)
    shut: Mapping[NodeState, int] = field(default_factory=dict)
    """How many nodes take no work, by why."""

    def give_back(self, grants: Iterable[Grant]) -> None:
        """Undo grants; nodes that have gone are passed over."""
        for grant in grants:
            if grant.node in self.nodes:
                self.nodes[grant.node].give_back(grant)


def free_pool(nodes: Sequence[Node], held: Iterable[Grant]) -> Pool:
    """The pool after what is held. Only ready nodes and healthy devices count."""
    pool: dict[NodeId, FreeNode] = {}
    shut: dict[NodeState, int] = {}
    for node in sorted(nodes, key=lambda node: node.id):
        if node.state != NodeState.READY:
            shut[node.state] = shut.get(node.state, 0) + 1
            continue
        free: dict[DeviceKind, dict[int, int]] = {}
        for device in node.devices:
            if device.health in _USABLE:
                free.setdefault(device.kind, {})[device.index] = device.milli
        whole = {kind: max(left.values()) for kind, left in free.items()}
        pool[node.id] = FreeNode(
            id=node.id,
            supernode=node.supernode or node.id,
            free=free,
            whole=whole,
            memory_bytes=node.memory_bytes,
        )
    for grant in held:
        if grant.node in pool:
            pool[grant.node].hold(grant)
    return Pool(nodes=pool, shut=shut)
