"""Fault injection: the faults that can be caused on purpose, and the port that causes them."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

from karez.core.nodes import NodeId
from karez.core.workloads import WorkloadId


class FaultKind(StrEnum):
    """A fault that is caused on purpose, to see that a job goes on."""

    KILL = "kill"
    """SIGKILL to a rank."""
    STOP = "stop"
    """SIGSTOP to a rank: it freezes."""
    SLOW = "slow"
    """A rank gets half of its time for a while."""
    CORRUPT = "corrupt"
    """A number in a rank's weights changes its sign."""
    LINK = "link"
    """A rank's connections to the others break."""
    NODE = "node"
    """A node loses the job's ranks and memory at once, as if its power had failed."""
    REPLICA_SERVER = "replica-server"
    """SIGKILL to the replica server, which holds peers' states."""
    CONTROLLER = "controller"
    """The job controller loses its state in memory."""
    CONTROL = "control"
    """SIGKILL to the control process."""

    @classmethod
    def _missing_(cls, value: object) -> "FaultKind | None":
        return OLD_FAULT_NAMES.get(value) if isinstance(value, str) else None


OLD_FAULT_NAMES: Mapping[str, FaultKind] = {
    "keeper": FaultKind.REPLICA_SERVER,
    "foreman": FaultKind.CONTROLLER,
}
"""Names of karez 0.1, accepted for one release."""


class FaultInjection(Protocol):
    """Causes faults on nodes. May raise NodeLost."""

    def inject_fault(self, node: NodeId, workload: WorkloadId, key: str, what: FaultKind) -> None:
        """Cause a fault in one workload: `key` names the process that it hits."""
        ...
