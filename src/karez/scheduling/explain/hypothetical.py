"""Hypothetical snapshots: the cluster after a suggested change or a what-if question."""

from collections.abc import Sequence
from dataclasses import replace

from karez.core.explanations import SuggestedChange
from karez.core.gangs import GangSpec
from karez.core.identity import Project
from karez.core.node_affinity import ANYWHERE
from karez.core.nodes import Node, NodeState


def project_after(project: Project, change: SuggestedChange) -> Project:
    """Return a project with the limits of a change."""
    return replace(
        project,
        quota={**project.quota, **change.quota},
        guarantee={**project.guarantee, **change.guarantee},
    )


def nodes_after(nodes: Sequence[Node], change: SuggestedChange) -> list[Node]:
    """Return the nodes after a change."""
    opened = [
        replace(node, state=NodeState.READY) if node.id in change.uncordon else node
        for node in nodes
    ]
    opened = [replace(node, windows=()) if node.id in change.unplan else node for node in opened]
    return [*opened, *change.add]


def gang_after(gang: GangSpec, change: SuggestedChange) -> GangSpec:
    """Return a gang after a change of its workers, kind, node affinity or topology."""
    if change.workers is not None:
        gang = replace(gang, min=change.workers, want=max(change.workers, gang.min))
    if change.kind is not None:
        gang = replace(gang, each=tuple(replace(n, kind=change.kind) for n in gang.each))
    if change.anywhere:
        roles = tuple(replace(role, among=ANYWHERE) for role in gang.roles)
        gang = replace(gang, among=ANYWHERE, roles=roles)
    if change.topology is not None:
        gang = replace(gang, topology=change.topology)
    return gang
