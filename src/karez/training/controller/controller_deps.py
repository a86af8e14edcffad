"""Dependencies of job controllers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from karez.core.grants import Grant
from karez.core.metrics import Metrics, NoMetrics
from karez.core.node_affinity import NodeAffinity
from karez.core.nodes import NodeId
from karez.core.ports import Blobs, Clock, Fabric, LogSink
from karez.core.receipts import Receipt
from karez.core.resource_requests import ResourceRequest
from karez.core.settings import Settings
from karez.core.stores.store import Store
from karez.core.traces import JobTracer, NoTracer
from karez.node_events.hub import NodeEventHub
from karez.training.controller.transfers import Transfers


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerDeps:
    """Stores, edges and settings that all job controllers of one process share."""

    store: Store
    fabric: Fabric
    hub: NodeEventHub
    """Delivers the events of nodes."""
    transfers: Transfers
    """Runs what moves files between nodes and the blob store, beside the control of jobs."""
    blobs: Blobs
    clock: Clock
    settings: Settings
    logs: LogSink
    find: Callable[[ResourceRequest, int, frozenset[NodeId], NodeAffinity], Sequence[Grant]]
    """Finds free devices for so many workers, not on these nodes, within the gang's affinity."""
    secrets: Callable[[str, Sequence[str]], Mapping[str, str]]
    """(project, names) -> values of secrets."""
    model_access: Callable[[str], Mapping[str, str]] = lambda _: {}
    """Job, or array -> variables by which its processes call models; empty: they may not now."""
    recipes: Mapping[str, str] = field(default_factory=dict)
    """Recipe -> `module:function`, of the entry points that are installed."""
    sign: Callable[[Receipt], Receipt] = lambda receipt: receipt
    """Puts the cloud's signature on a receipt."""
    tracer: JobTracer = field(default_factory=NoTracer)
    """Is told of what changes in a job's trace."""
    metrics: Metrics = field(default_factory=NoMetrics)
    nodes_to_avoid: Callable[[], Mapping[NodeId, str]] = dict
    """Evicted nodes -> reason."""
