"""Protocol of the store of nodes."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from karez.core.nodes import MaintenanceWindow, Node, NodeId, NodeOverride, NodeState


class NodeStore(Protocol):
    """The nodes ever seen, their maintenance windows and operators' overrides."""

    def record_nodes(self, nodes: Sequence[Node], *, now: float) -> None:
        """Record nodes as seen now; a cordon stays."""
        ...

    def set_node(self, node: NodeId, state: NodeState) -> bool:
        """Cordon, uncordon or mark lost. False: no such node."""
        ...

    def set_windows(self, node: NodeId, windows: Sequence[MaintenanceWindow]) -> bool:
        """Replace a node's maintenance windows. False: no such node."""
        ...

    def set_override(self, node: NodeId, mark: NodeOverride) -> bool:
        """Store an operator's override of a node. False: no such node."""
        ...

    def lost(self) -> Mapping[NodeId, float]:
        """Return the nodes that are lost, and when each was last seen."""
        ...

    def overrides(self) -> Mapping[NodeId, NodeOverride]:
        """Return the overrides by operators."""
        ...

    def nodes(self, only: Collection[NodeId] | None = None) -> Sequence[Node]:
        """List all nodes ever seen, or only these, with their overrides and maintenance windows."""
        ...
