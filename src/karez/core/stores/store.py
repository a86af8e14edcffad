"""Protocol of the whole store."""

from typing import Protocol

from karez.core.stores.access import AccessStore
from karez.core.stores.alerts import AlertStore
from karez.core.stores.artifacts import ArtifactStore
from karez.core.stores.history import HistoryStore
from karez.core.stores.nodes import NodeStore
from karez.core.stores.replicas import ReplicaStore
from karez.core.stores.resize_requests import ResizeRequestStore
from karez.core.stores.scheduler import SchedulerStore
from karez.core.stores.usage import UsageStore
from karez.core.stores.workloads import WorkloadStore


class Store(Protocol):
    """All stores of one control plane."""

    workloads: WorkloadStore
    """Jobs, services, leases, allocations."""
    replicas: ReplicaStore
    """Replicas of services."""
    pool: NodeStore
    """The nodes."""
    resize_requests: ResizeRequestStore
    """Resize requests of running gangs."""
    scheduler: SchedulerStore
    """What the scheduler leaves for its successor."""
    history: HistoryStore
    """Receipts, metrics, checkpoints, incidents."""
    artifacts: ArtifactStore
    """Artifacts."""
    access: AccessStore
    """Projects, keys, secrets."""
    usage: UsageStore
    """Usage and audit."""
    alerts: AlertStore
    """Alerts and their rules."""

    def ping(self) -> None:
        """Check the connection. Raises Unreachable if the store does not answer."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...
