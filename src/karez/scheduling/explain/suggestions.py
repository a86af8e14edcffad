"""What would start a waiting workload now: small changes first, each tried on a copy."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from karez.core.explanations import MAX_NEW_NODES, SuggestedChange
from karez.core.identity import Project
from karez.core.resources import (
    IN_BYTES,
    Device,
    DeviceKind,
    Node,
    NodeId,
    NodeState,
    ResourceRequest,
    write_amount,
)
from karez.core.units import MILLI, show_bytes
from karez.core.workloads import ANYWHERE, GangSpec, Topology, WorkloadId
from karez.scheduling.cluster_state import devices_of
from karez.scheduling.engine import SchedulingEngine
from karez.scheduling.explain.hypothetical import gang_after, nodes_after, project_after
from karez.scheduling.placement.capacity import SLOTS, Pool
from karez.scheduling.placement.placement import fits, place_gang
from karez.scheduling.placement.pool_builder import free_pool
from karez.scheduling.queue.order import PendingWorkload
from karez.scheduling.queue.quota import share_of, within_quota
from karez.scheduling.snapshot import Snapshot

MAX_STOPS = 8
"""More workloads than this to stop is no small change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestionContext:
    """A workload that waits, in a cloud where all that could start has."""

    snapshot: Snapshot
    engine: SchedulingEngine
    waiting: PendingWorkload
    priority: int | None
    """What would put it first in line; None if it is."""
    until: float | None = None
    """When it ends, where nodes have maintenance to come."""
    now: float = 0.0


def suggest_changes(situation: SuggestionContext) -> tuple[SuggestedChange, ...]:
    """Changes that would each start it now: words to the line first, then to the pool."""
    base = replace(_quota(situation), priority=situation.priority)
    if _would_start(situation, base):
        is_one = _raises_quota(base) or situation.priority is not None
        return (_described(situation, base, ()),) if is_one else ()
    found: list[SuggestedChange] = []
    for candidates in (
        _uncordon,
        _cancel_maintenance,
        _drop_affinity,
        _fewer,
        _other_kind,
        _any_topology,
        _stop,
        _add,
    ):
        for change, words in candidates(situation, base):
            if _would_start(situation, change):
                found.append(_described(situation, change, words))
                break
    return tuple(found)


def _described(
    situation: SuggestionContext, change: SuggestedChange, words: tuple[str, ...]
) -> SuggestedChange:
    """The change with its words: what comes first in line and quota, then the rest."""
    said = list(words)
    if _raises_quota(change):
        name = situation.waiting.project
        after = project_after(situation.engine.cluster.projects[name], change)
        said.append(f"raise the quota of project {name}: `{_command(after)}`")
    if change.priority is not None:
        said.append(f"give it priority {change.priority}, so that it is first in line")
    return replace(change, what=" and ".join(said))


def _raises_quota(change: SuggestedChange) -> bool:
    return bool(change.quota or change.guarantee)


def _command(project: Project) -> str:
    """The command that sets all its limits: a kind that is not named would have none."""
    words = [f"{kind}={write_amount(kind, amount)}" for kind, amount in project.quota.items()]
    if project.cohort:
        words.append(f"--cohort {project.cohort}")
    for option, limits in (("guarantee", project.guarantee), ("lend", project.lend)):
        words += [f"--{option} {kind}={write_amount(kind, n)}" for kind, n in limits.items()]
    if project.weight != 1:
        words.append(f"--weight {project.weight}")
    return " ".join(["karez projects quota", project.name, *words])


def _quota(situation: SuggestionContext) -> SuggestedChange:
    """The smallest limits that let its project have the first alternatives, if quota bars it."""
    waiting, cluster = situation.waiting, situation.engine.cluster
    _, barred = within_quota(waiting, cluster.projects, cluster.used)
    if not barred:
        return SuggestedChange(what="")
    caps, guarantees = {}, {}
    for kind, wanted in _asked(waiting.gang).items():
        share = share_of(waiting.project, kind, cluster.projects, cluster.used)
        if share.room is None or share.room >= wanted:
            continue
        guarantee = None
        if share.guarantee is not None:
            guarantee = guarantees[kind] = _guarantee(situation, kind, wanted)
        if share.cap is not None:
            caps[kind] = max(share.cap, share.held + wanted, guarantee or 0)
    return SuggestedChange(what="", quota=caps, guarantee=guarantees)


def _asked(gang: GangSpec) -> Counter[DeviceKind]:
    """What the smallest gang takes of each kind, by its first alternatives."""
    found: Counter[DeviceKind] = Counter()
    for need, workers in [(gang.each[0], gang.min), *((r.each[0], r.workers) for r in gang.roles)]:
        for kind, amount in need.amounts.items():
            found[kind] += amount * workers
    return found


def _guarantee(situation: SuggestionContext, kind: DeviceKind, wanted: int) -> int:
    """The smallest guarantee with which its project may have so much."""
    cluster = situation.engine.cluster
    project = cluster.projects[situation.waiting.project]
    low = project.guarantee.get(kind, 0)
    high = low + wanted + sum(amount for (_, k), amount in cluster.used.items() if k == kind)
    uncapped = {k: amount for k, amount in project.quota.items() if k != kind}
    while low < high:
        middle = (low + high) // 2
        guarantee = {**project.guarantee, kind: middle}
        after = replace(project, quota=uncapped, guarantee=guarantee)
        room = share_of(project.name, kind, {**cluster.projects, project.name: after}, cluster.used)
        if room.room is None or room.room >= wanted:
            high = middle
        else:
            low = middle + 1
    return high


def _would_start(situation: SuggestionContext, change: SuggestedChange) -> bool:
    """Whether it finds places once it is first in line and the change is made."""
    gang = gang_after(situation.waiting.gang, change)
    engine, name = situation.engine, situation.waiting.project
    projects = dict(engine.cluster.projects)
    if name in projects:
        projects[name] = project_after(projects[name], change)
    used = dict(engine.cluster.used)
    for ident in change.stop:
        run = engine.cluster.running[ident]
        for grant in run.grants:
            for kind, amount in grant.amounts.items():
                used[run.project, kind] -= amount
    gang, barred = within_quota(replace(situation.waiting, gang=gang), projects, used)
    if barred:
        return False
    pool = _pool_after(situation, change)
    is_sure = gang.topology != Topology.REQUIRE_SUPERNODE
    is_sure = is_sure and not gang.roles
    if not fits(gang, pool, situation.until):
        return False
    return is_sure or place_gang(gang, pool, situation.until) is not None


def _pool_after(situation: SuggestionContext, change: SuggestedChange) -> Pool:
    if change.uncordon or change.add or change.unplan:
        held = [
            grant
            for run in situation.engine.cluster.running.values()
            if run.id not in change.stop
            for grant in run.grants
        ]
        return free_pool(nodes_after(situation.snapshot.nodes, change), held, now=situation.now)
    pool = situation.engine.cluster.pool.fork()
    for ident in change.stop:
        pool.release(situation.engine.cluster.running[ident].grants)
    return pool


Candidates = Iterator[tuple[SuggestedChange, tuple[str, ...]]]


def _uncordon(situation: SuggestionContext, base: SuggestedChange) -> Candidates:
    """One cordoned node, then all of them."""
    closed = (NodeState.CORDONED, NodeState.DRAINING, NodeState.EVICTED)
    shut = [n.id for n in situation.snapshot.nodes if n.state in closed]
    for nodes in [*((node,) for node in shut), tuple(shut)]:
        if nodes:
            named = " ".join(f"`karez pool uncordon {node}`" for node in nodes)
            yield replace(base, uncordon=nodes), (f"open {len(nodes)} cordoned: {named}",)


def _cancel_maintenance(situation: SuggestionContext, base: SuggestedChange) -> Candidates:
    """One node's maintenance called off, then all of it."""
    planned = [n.id for n in situation.snapshot.nodes if n.windows]
    for nodes in [*((node,) for node in planned), tuple(planned)]:
        if nodes:
            named = " ".join(f"`karez pool maintenance {node} --none`" for node in nodes)
            yield replace(base, unplan=nodes), (f"call off the maintenance: {named}",)


def _drop_affinity(situation: SuggestionContext, base: SuggestedChange) -> Candidates:
    """Its node sets given up."""
    gang = situation.waiting.gang
    amongs = [one for one in (gang.among, *(role.among for role in gang.roles)) if one != ANYWHERE]
    if amongs:
        said = " and ".join(f"`{among.show()}`" for among in amongs)
        yield replace(base, anywhere=True), (f"let it run elsewhere, without {said}",)


def _fewer(situation: SuggestionContext, base: SuggestedChange) -> Candidates:
    """The most workers below its minimum that fit."""
    least = situation.waiting.gang.min
    low, high = 0, least - 1
    while low < high:
        middle = (low + high + 1) // 2
        if _would_start(situation, replace(base, workers=middle)):
            low = middle
        else:
            high = middle - 1
    if low:
        yield replace(base, workers=low), (f"let it start with {low} of its {least} workers",)


def _other_kind(situation: SuggestionContext, base: SuggestedChange) -> Candidates:
    asked = {need.kind for need in situation.waiting.gang.each}
    there = {device.kind for node in situation.snapshot.nodes for device in node.devices}
    for kind in (DeviceKind.NPU, DeviceKind.GPU, DeviceKind.CPU):
        if kind in there - asked and not _raises_quota(base):
            yield replace(base, kind=kind), (f"let it run on {kind} devices",)


def _any_topology(situation: SuggestionContext, base: SuggestedChange) -> Candidates:
    if situation.waiting.gang.topology in (Topology.REQUIRE_SUPERNODE, Topology.SPREAD):
        topology = situation.waiting.gang.topology
        yield replace(base, topology=Topology.ANY), (f"give up its topology {topology}",)


def _stop(situation: SuggestionContext, base: SuggestedChange) -> Candidates:
    """The smallest workload that makes room by itself, else the fewest of the largest."""
    kinds = set(_asked(situation.waiting.gang))
    kinds |= {need.kind for need in situation.waiting.gang.each}
    sizes: list[tuple[float, int, WorkloadId]] = []
    for run in situation.engine.cluster.running.values():
        if any(kind in grant.amounts for grant in run.grants for kind in kinds):
            memory = sum(grant.memory_bytes for grant in run.grants)
            sizes.append((devices_of(run.grants), memory, run.id))
    for devices, memory, ident in sorted(sizes):
        what = f"{devices:g} devices" if devices else show_bytes(memory)
        yield replace(base, stop=(ident,)), (f"stop or move {ident}, which holds {what}",)
    together: list[WorkloadId] = []
    for _, _, ident in sorted(sizes, reverse=True)[:MAX_STOPS]:
        together.append(ident)
        words = f"stop or move {', '.join(together)}"
        yield replace(base, stop=tuple(together)), (words,)


def _add(situation: SuggestionContext, base: SuggestedChange) -> Candidates:
    """As many new nodes as its workers need, each like the best there is, or made to measure.

    If that does not do, new nodes for its roles too. Node sets name no node that is yet to come.
    """
    engine = situation.engine
    gang, _ = within_quota(situation.waiting, engine.cluster.projects, engine.cluster.used)
    is_bound = any(one != ANYWHERE for one in (gang.among, *(r.among for r in gang.roles)))
    block = "new" if gang.topology == Topology.REQUIRE_SUPERNODE else ""
    main = _NodeTemplate.of(situation, gang.each[0], block)
    roles = [
        (_NodeTemplate.of(situation, role.each[0], block), role.workers) for role in gang.roles
    ]
    beside = [(like, -(-workers // like.per_node)) for like, workers in roles]
    plans = [[(main, count)] for count in _counts(situation, gang, main.per_node)]
    whole = -(-gang.min // main.per_node) if gang.topology != Topology.SPREAD else gang.min
    plans += [beside, [(main, whole), *beside]] if beside else []
    for plan in plans:
        count = sum(number for _, number in plan)
        if count > MAX_NEW_NODES:
            continue
        likes = [like for like, number in plan for _ in range(number)]
        nodes = tuple(replace(one.node, id=NodeId(f"new-{n}")) for n, one in enumerate(likes))
        words = [f"add {number} {like.words(number)}" for like, number in plan]
        if is_bound:
            words.append("let it run on new nodes")
        yield replace(base, add=nodes, anywhere=is_bound), tuple(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class _NodeTemplate:
    """A node to add more of."""

    node: Node
    need: ResourceRequest
    model: NodeId
    per_node: int

    @classmethod
    def of(
        cls, situation: SuggestionContext, need: ResourceRequest, supernode: str
    ) -> "_NodeTemplate":
        """The best there is for a need, or one made to measure."""
        model = _model_node(situation, need)
        node = replace(model, state=NodeState.READY, supernode=supernode, windows=())
        per_node = max(1, int(free_pool([node], ()).room(need).sum()))
        return cls(node=node, need=need, model=model.id, per_node=per_node)

    def words(self, count: int) -> str:
        """What they are."""
        nodes = "node" if count == 1 else "nodes"
        if self.model == _MEASURE:
            return f"{nodes} with {self.need.show()} each"
        return f"{nodes} like {self.model}"


_MEASURE = NodeId("made-to-measure")


def _model_node(situation: SuggestionContext, need: ResourceRequest) -> Node:
    """The node that would hold most of its workers when empty, or one that holds one."""
    best, room = None, 0
    for node in {(n.devices, n.memory_bytes): n for n in situation.snapshot.nodes}.values():
        whole = free_pool([replace(node, state=NodeState.READY)], ())
        here = int(whole.room(need).sum())
        if here > room:
            best, room = node, here
    if best is not None:
        return best
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


def _counts(situation: SuggestionContext, gang: GangSpec, per_node: int) -> list[int]:
    """The nodes that its missing workers need, then as many as the whole gang needs."""
    most = gang.min if gang.topology == Topology.SPREAD else -(-gang.min // per_node)
    missing = gang.min - int(situation.engine.cluster.pool.room(gang.each[0]).sum())
    fewest = -(-missing // per_node)
    return sorted({count for count in (fewest, most) if 0 < count <= min(most, MAX_NEW_NODES)})
