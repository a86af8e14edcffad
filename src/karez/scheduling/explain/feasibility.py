"""Feasibility check on submission: finds gangs that the pool could not hold even when empty."""

from collections.abc import Sequence
from dataclasses import replace

from karez.core.gangs import GangSpec
from karez.core.nodes import Node, NodeState
from karez.core.resource_requests import ResourceRequest
from karez.core.resource_syntax import show_amount
from karez.scheduling.placement.capacity import AMOUNTS, SLOTS, Pool
from karez.scheduling.placement.pool_builder import free_pool


def empty_pool(nodes: Sequence[Node]) -> Pool:
    """Build a pool of all nodes, with nothing held and no node closed."""
    open_nodes = [replace(n, state=NodeState.READY, windows=()) for n in nodes]
    return free_pool(open_nodes, ())


def infeasible_reason(gang: GangSpec, empty: Pool) -> str:
    """Explain why no node could ever hold a worker, and the most that one could; "" if one could.

    A kind that no node has is feasible: nodes that have it may still join.
    """
    parts = [("a worker", gang.each), *((f"role {r.name}", r.each) for r in gang.roles)]
    for who, each in parts:
        problems = [_problem(need, empty) for need in each]
        if all(problems):
            return f"{who}: {'; or '.join(problems)}"
    return ""


def _problem(need: ResourceRequest, empty: Pool) -> str:
    inventory = empty.inventory
    if need.kind in SLOTS:
        of_kind = (empty.masks.get(need.kind, 0) >> inventory.arrays.model) & 1 == 1
        per_node = (of_kind & (inventory.size > 0)).sum(1)
        if not per_node.any():
            return ""
        if need.models and not empty.shape(need).models:
            names = (n.removeprefix(f"{need.kind}:") for n in inventory.models)
            known = ", ".join(sorted(name for name in names if name))
            return f"no {need.kind} is of model {' or '.join(need.models)}; there are {known}"
        most = int(per_node.max()) * 1000
        if need.milli > most:
            return f"{_asked(need)}; no node has more than {show_amount(need.kind, most)}"
    if empty.room(need).any():
        return ""
    for column, kind in enumerate(AMOUNTS):
        most = int(inventory.bulk_size[:, column].max(initial=0))
        amount = need.amounts.get(kind, 0)
        if most and amount > most:
            return (
                f"it needs {show_amount(kind, amount)} {kind}, and no node has more than "
                f"{show_amount(kind, most)}"
            )
    if all(
        inventory.bulk_size[:, AMOUNTS.index(kind)].any()
        for kind in need.amounts
        if kind in AMOUNTS
    ):
        return f"no one node has all of {need.show()}"
    return ""


def _asked(need: ResourceRequest) -> str:
    return f"it needs {show_amount(need.kind, need.milli)} {need.kind} on one node"
