"""API requests about nodes: the pool, placement, operation and faults."""

from collections.abc import Sequence

from karez.client.calls import Call
from karez.client.paths import in_path
from karez.core.codec import to_json
from karez.core.explanations import DefragResult, Explanation, WhatIf, WhatIfResult
from karez.core.nodes import MaintenanceWindow, Node, NodeOverride
from karez.core.recovery import FaultReport
from karez.core.workloads import Allocation


def pool() -> Call[list[Node]]:
    """List all nodes."""
    return Call(answer=list[Node], method="GET", path="/pool")


def allocations() -> Call[dict[str, Allocation]]:
    """List the devices and memory that each workload holds, by workload id."""
    return Call(answer=dict[str, Allocation], method="GET", path="/pool/allocations")


def why(ident: str) -> Call[Explanation]:
    """Explain why a job or a service waits."""
    return Call(answer=Explanation, method="GET", path=f"/pool/why/{in_path(ident)}")


def what_if(question: WhatIf) -> Call[WhatIfResult]:
    """Predict the effect of a change of nodes, quotas or the queue."""
    body = to_json(question)
    return Call(answer=WhatIfResult, method="POST", path="/pool/what-if", body=body, once="same")


def cordon(node: str, *, closed: bool = True) -> Call[dict[str, str]]:
    """Close a node to new work, or open a closed node."""
    word = "cordon" if closed else "uncordon"
    path = f"/pool/nodes/{node}/{word}"
    return Call(answer=dict[str, str], method="POST", path=path, once="same")


def drain(node: str) -> Call[dict[str, str]]:
    """Close a node and move preemptible work away."""
    path = f"/pool/nodes/{node}/drain"
    return Call(answer=dict[str, str], method="POST", path=path, once="same")


def maintenance(node: str, windows: Sequence[MaintenanceWindow]) -> Call[list[MaintenanceWindow]]:
    """Replace a node's planned maintenance windows."""
    body, path = [to_json(window) for window in windows], f"/pool/nodes/{node}/maintenance"
    return Call(answer=list[MaintenanceWindow], method="PUT", path=path, body=body, once="same")


def overrides() -> Call[dict[str, NodeOverride]]:
    """List operators' overrides of node properties, by node."""
    return Call(answer=dict[str, NodeOverride], method="GET", path="/pool/overrides")


def override_node(node: str, override: NodeOverride) -> Call[NodeOverride]:
    """Replace an operator's override of a node's properties."""
    path = f"/pool/nodes/{node}/override"
    return Call(answer=NodeOverride, method="PUT", path=path, body=to_json(override), once="same")


def defragment(*, carry_out: bool = False) -> Call[DefragResult]:
    """Plan which jobs to move to free whole nodes; with `carry_out`, move them."""
    method = "POST" if carry_out else "GET"
    return Call(answer=DefragResult, method=method, path="/pool/defragment", once="same")


def report_fault(report: FaultReport) -> Call[FaultReport]:
    """Report a fault of a node."""
    return Call(answer=FaultReport, method="POST", path="/faults", body=to_json(report))


def faults(since: float = 0.0, node: str = "") -> Call[list[FaultReport]]:
    """List reported faults, oldest first."""
    params = {"since": since, "node": node}
    return Call(answer=list[FaultReport], method="GET", path="/faults", params=params)
