"""The pool over HTTP."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter

from karez.core.explanations import DefragResult, Explanation, WhatIf, WhatIfResult
from karez.core.identity import Role
from karez.core.nodes import MaintenanceWindow, Node, NodeOverride, NodeState
from karez.core.workloads import Allocation
from karez.server.api.authorization import CloudDep, Who, allow, old_name

router = APIRouter(prefix="/pool", tags=["pool"])


@router.get("", **allow(Role.VIEWER))
def show_pool(cloud: CloudDep) -> Sequence[Node]:
    """All nodes, their devices and states."""
    return cloud.store.pool.nodes()


@router.get("/allocations", **allow(Role.VIEWER))
def show_allocations(cloud: CloudDep, who: Who) -> Mapping[str, Allocation]:
    """Current allocations of the workloads that you may see, by workload."""
    return {str(ident): held for ident, held in cloud.pool.allocations(who).items()}


@router.get("/why/{workload}", **allow(Role.VIEWER))
def why_workload(workload: str, cloud: CloudDep, who: Who) -> Explanation:
    """Why a job or service waits: counts, quota, holders, an estimate, and what would start it."""
    return cloud.pool.why(who, workload)


@router.post("/what-if", **allow(Role.ADMIN))
def what_if(question: WhatIf, cloud: CloudDep, who: Who) -> WhatIfResult:
    """Show what a hypothetical change would do; for an admin of all projects."""
    cloud.permissions.require_everywhere(who)
    return cloud.pool.what_if(question)


@router.post("/nodes/{node}/cordon", **allow(Role.ADMIN))
def cordon_node(node: str, cloud: CloudDep, who: Who) -> dict[str, Any]:
    """Place nothing new on a node; what runs there goes on."""
    cloud.permissions.require_everywhere(who)
    cloud.pool.set_node(node, NodeState.CORDONED)
    return {"node": node, "state": NodeState.CORDONED}


@router.post("/nodes/{node}/uncordon", **allow(Role.ADMIN))
def uncordon_node(node: str, cloud: CloudDep, who: Who) -> dict[str, Any]:
    """Place work on a node again."""
    cloud.permissions.require_everywhere(who)
    cloud.pool.set_node(node, NodeState.READY)
    return {"node": node, "state": NodeState.READY}


@router.post("/nodes/{node}/drain", **allow(Role.ADMIN))
def drain_node(node: str, cloud: CloudDep, who: Who) -> dict[str, Any]:
    """Place nothing new on a node, and move preemptible workloads elsewhere."""
    cloud.permissions.require_everywhere(who)
    cloud.pool.set_node(node, NodeState.DRAINING)
    return {"node": node, "state": NodeState.DRAINING}


@router.put("/nodes/{node}/maintenance", **allow(Role.ADMIN))
def plan_maintenance(
    node: str, windows: list[MaintenanceWindow], cloud: CloudDep, who: Who
) -> list[MaintenanceWindow]:
    """Plan when a node is needed for something else; an empty list plans nothing.

    Workloads that would not end by then are not placed there, unless they can be moved; those are
    moved shortly before.
    """
    cloud.permissions.require_everywhere(who)
    cloud.pool.plan_maintenance(node, windows)
    return windows


@router.get("/marks", **old_name(Role.ADMIN))
@router.get("/overrides", **allow(Role.ADMIN))
def show_overrides(cloud: CloudDep, who: Who) -> Mapping[str, NodeOverride]:
    """Overrides that operators have set, by node."""
    cloud.permissions.require_everywhere(who)
    return {str(node): mark for node, mark in cloud.store.pool.overrides().items()}


@router.put("/nodes/{node}/mark", **old_name(Role.ADMIN))
@router.put("/nodes/{node}/override", **allow(Role.ADMIN))
def override_node(node: str, mark: NodeOverride, cloud: CloudDep, who: Who) -> NodeOverride:
    """Set a node's topology and labels, and the health of its devices."""
    cloud.permissions.require_everywhere(who)
    cloud.pool.set_override(node, mark)
    return mark


@router.get("/regroup", **old_name(Role.ADMIN))
@router.get("/defragment", **allow(Role.ADMIN))
def plan_defrag(cloud: CloudDep, who: Who) -> DefragResult:
    """Moves that would free whole nodes, and their price; for an admin of all projects."""
    cloud.permissions.require_everywhere(who)
    return cloud.pool.defragment(carry_out=False)


@router.post("/regroup", **old_name(Role.ADMIN))
@router.post("/defragment", **allow(Role.ADMIN))
def defragment(cloud: CloudDep, who: Who) -> DefragResult:
    """Make these moves: each job stores a step, and resumes from it on its new nodes."""
    cloud.permissions.require_everywhere(who)
    return cloud.pool.defragment(carry_out=True)
