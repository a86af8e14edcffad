"""Suggested nodes: how many to add, and of what kind, so that a pending workload would start."""

from dataclasses import dataclass, replace

from karez.core.devices import IN_BYTES, Device, DeviceKind
from karez.core.explanations import MAX_NEW_NODES, SuggestedChange
from karez.core.gangs import GangSpec, Topology
from karez.core.node_affinity import ANYWHERE
from karez.core.nodes import Node, NodeId, NodeState
from karez.core.resource_requests import ResourceRequest
from karez.core.units import MILLI
from karez.scheduling.explain.suggestion_trial import SuggestedChanges, SuggestionContext
from karez.scheduling.placement.capacity import SLOTS
from karez.scheduling.placement.pool_builder import free_pool
from karez.scheduling.queue.quota import within_quota


def add_nodes(context: SuggestionContext, base: SuggestedChange) -> SuggestedChanges:
    """Suggest as many new nodes as the workers need, each like the best existing one.

    A node made to measure replaces that where no node fits. New nodes for the roles come next. A
    node affinity is dropped, since no new node matches it.
    """
    engine = context.engine
    gang, _ = within_quota(context.waiting, engine.cluster.projects, engine.cluster.used)
    is_bound = any(among != ANYWHERE for among in (gang.among, *(r.among for r in gang.roles)))
    for plan in _addition_plans(context, gang):
        count = sum(number for _, number in plan)
        if count > MAX_NEW_NODES:
            continue
        models = [like.node for like, number in plan for _ in range(number)]
        nodes = tuple(replace(node, id=NodeId(f"new-{n}")) for n, node in enumerate(models))
        words = [f"add {number} {like.words(number)}" for like, number in plan]
        if is_bound:
            words.append("let it run on new nodes")
        yield replace(base, add=nodes, anywhere=is_bound), tuple(words)


def _addition_plans(
    context: SuggestionContext, gang: GangSpec
) -> list[list[tuple["_NodeTemplate", int]]]:
    """(template, number of nodes) of each addition to try, the smallest first."""
    block = "new" if gang.topology == Topology.REQUIRE_SUPERNODE else ""
    main = _NodeTemplate.of(context, gang.each[0], block)
    roles = [(_NodeTemplate.of(context, role.each[0], block), role.workers) for role in gang.roles]
    for_roles = [(like, -(-workers // like.per_node)) for like, workers in roles]
    plans = [[(main, count)] for count in _counts(context, gang, main.per_node)]
    whole = -(-gang.min // main.per_node) if gang.topology != Topology.SPREAD else gang.min
    plans += [for_roles, [(main, whole), *for_roles]] if for_roles else []
    return plans


@dataclass(frozen=True, slots=True, kw_only=True)
class _NodeTemplate:
    """Template for suggested nodes."""

    node: Node
    need: ResourceRequest
    model: NodeId
    per_node: int

    @classmethod
    def of(
        cls, context: SuggestionContext, need: ResourceRequest, supernode: str
    ) -> "_NodeTemplate":
        """Make a template of the best node for a need, or of a node made to measure."""
        model = _model_node(context, need)
        node = replace(model, state=NodeState.READY, supernode=supernode, windows=())
        per_node = max(1, int(free_pool([node], ()).room(need).sum()))
        return cls(node=node, need=need, model=model.id, per_node=per_node)

    def words(self, count: int) -> str:
        """Describe `count` nodes of this template."""
        nodes = "node" if count == 1 else "nodes"
        if self.model == _MEASURE:
            return f"{nodes} with {self.need.show()} each"
        return f"{nodes} like {self.model}"


_MEASURE = NodeId("made-to-measure")


def _model_node(context: SuggestionContext, need: ResourceRequest) -> Node:
    """The node that holds most workers of a need when empty, or one made to measure for it."""
    best, room = None, 0
    for node in {(n.devices, n.memory_bytes): n for n in context.snapshot.nodes}.values():
        whole = free_pool([replace(node, state=NodeState.READY)], ())
        here = int(whole.room(need).sum())
        if here > room:
            best, room = node, here
    if best is not None:
        return best
    return _measured_node(need)


def _measured_node(need: ResourceRequest) -> Node:
    """A node with exactly the devices that one worker needs."""
    devices = tuple(
        Device(
            kind=kind, index=index, model=need.models[0] if need.models and kind in SLOTS else ""
        )
        for kind, amount in need.amounts.items()
        if kind not in IN_BYTES
        for index in range(-(-amount // MILLI))
    )
    if need.storage_bytes:
        disk = Device(kind=DeviceKind.STORAGE, index=0, memory_bytes=need.storage_bytes)
        devices = (*devices, disk)
    return Node(id=_MEASURE, address="", devices=devices, memory_bytes=need.memory_bytes)


def _counts(context: SuggestionContext, gang: GangSpec, per_node: int) -> list[int]:
    """Node counts to try: enough for the missing workers, then enough for the whole gang."""
    most = gang.min if gang.topology == Topology.SPREAD else -(-gang.min // per_node)
    missing = gang.min - int(context.engine.cluster.pool.room(gang.each[0]).sum())
    fewest = -(-missing // per_node)
    return sorted({count for count in (fewest, most) if 0 < count <= min(most, MAX_NEW_NODES)})
