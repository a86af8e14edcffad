"""Suggested changes that would start a waiting workload now: small ones first, each tried."""

from dataclasses import replace

from karez.core.devices import DeviceKind
from karez.core.explanations import SuggestedChange
from karez.core.gangs import Topology
from karez.core.node_affinity import ANYWHERE
from karez.core.nodes import NodeState
from karez.core.units import show_bytes
from karez.core.workloads import WorkloadId
from karez.scheduling.cluster_state import devices_of
from karez.scheduling.explain.hypothetical import project_after
from karez.scheduling.explain.node_additions import add_nodes
from karez.scheduling.explain.quota_increase import quota_command, quota_increase, wanted_amounts
from karez.scheduling.explain.suggestion_trial import (
    SuggestedChanges,
    SuggestionContext,
    would_start,
)

MAX_STOPS = 8
"""Most workloads to stop in one suggestion: more is no small change."""


def suggest_changes(context: SuggestionContext) -> tuple[SuggestedChange, ...]:
    """Find changes that would each start the workload now: queue and quota first, then the pool."""
    over_budget = context.waiting.project in context.engine.cluster.over_budget
    base = replace(quota_increase(context), priority=context.priority, spend=over_budget)
    if would_start(context, base):
        is_change = over_budget or _raises_quota(base) or context.priority is not None
        return (_described(context, base, ()),) if is_change else ()
    suggestions: list[SuggestedChange] = []
    for candidates in (
        _uncordon,
        _cancel_maintenance,
        _drop_affinity,
        _reduce_workers,
        _change_kind,
        _drop_topology,
        _stop_others,
        add_nodes,
    ):
        for change, words in candidates(context, base):
            if would_start(context, change):
                suggestions.append(_described(context, change, words))
                break
    return tuple(suggestions)


def _described(
    context: SuggestionContext, change: SuggestedChange, words: tuple[str, ...]
) -> SuggestedChange:
    """Describe a change: its own words first, then those for quota and priority."""
    parts = list(words)
    if _raises_quota(change):
        name = context.waiting.project
        after = project_after(context.engine.cluster.projects[name], change)
        parts.append(f"raise the quota of project {name}: `{quota_command(after)}`")
    if change.spend:
        name = context.waiting.project
        parts.append(f"let project {name} spend more: `karez projects limits {name} --spend`")
    if change.priority is not None:
        parts.append(f"give it priority {change.priority}, so that it is first in line")
    return replace(change, what=" and ".join(parts))


def _raises_quota(change: SuggestedChange) -> bool:
    return bool(change.quota or change.guarantee)


def _uncordon(context: SuggestionContext, base: SuggestedChange) -> SuggestedChanges:
    """Open one cordoned node, then all of them."""
    closed_states = (NodeState.CORDONED, NodeState.DRAINING, NodeState.EVICTED)
    closed_nodes = [n.id for n in context.snapshot.nodes if n.state in closed_states]
    for nodes in [*((node,) for node in closed_nodes), tuple(closed_nodes)]:
        if nodes:
            named = " ".join(f"`karez pool uncordon {node}`" for node in nodes)
            yield replace(base, uncordon=nodes), (f"open {len(nodes)} cordoned: {named}",)


def _cancel_maintenance(context: SuggestionContext, base: SuggestedChange) -> SuggestedChanges:
    """Cancel one node's maintenance, then all of it."""
    planned = [n.id for n in context.snapshot.nodes if n.windows]
    for nodes in [*((node,) for node in planned), tuple(planned)]:
        if nodes:
            named = " ".join(f"`karez pool maintenance {node} --none`" for node in nodes)
            yield replace(base, unplan=nodes), (f"call off the maintenance: {named}",)


def _drop_affinity(context: SuggestionContext, base: SuggestedChange) -> SuggestedChanges:
    """Drop the node affinities of the gang and its roles."""
    gang = context.waiting.gang
    affinities = [a for a in (gang.among, *(role.among for role in gang.roles)) if a != ANYWHERE]
    if affinities:
        names = " and ".join(f"`{affinity.show()}`" for affinity in affinities)
        yield replace(base, anywhere=True), (f"let it run elsewhere, without {names}",)


def _reduce_workers(context: SuggestionContext, base: SuggestedChange) -> SuggestedChanges:
    """Start with the most workers below the minimum that fit."""
    least = context.waiting.gang.min
    low, high = 0, least - 1
    while low < high:
        middle = (low + high + 1) // 2
        if would_start(context, replace(base, workers=middle)):
            low = middle
        else:
            high = middle - 1
    if low:
        yield replace(base, workers=low), (f"let it start with {low} of its {least} workers",)


def _change_kind(context: SuggestionContext, base: SuggestedChange) -> SuggestedChanges:
    requested = {need.kind for need in context.waiting.gang.each}
    available = {device.kind for node in context.snapshot.nodes for device in node.devices}
    for kind in (DeviceKind.NPU, DeviceKind.GPU, DeviceKind.CPU):
        if kind in available - requested and not _raises_quota(base):
            yield replace(base, kind=kind), (f"let it run on {kind} devices",)


def _drop_topology(context: SuggestionContext, base: SuggestedChange) -> SuggestedChanges:
    if context.waiting.gang.topology in (Topology.REQUIRE_SUPERNODE, Topology.SPREAD):
        topology = context.waiting.gang.topology
        yield replace(base, topology=Topology.ANY), (f"give up its topology {topology}",)


def _stop_others(context: SuggestionContext, base: SuggestedChange) -> SuggestedChanges:
    """Stop the smallest workload that is enough by itself, else the fewest of the largest."""
    kinds = set(wanted_amounts(context.waiting.gang))
    kinds |= {need.kind for need in context.waiting.gang.each}
    sizes: list[tuple[float, int, WorkloadId]] = []
    for run in context.engine.cluster.running.values():
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
