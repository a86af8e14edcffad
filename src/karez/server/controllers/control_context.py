"""What the controllers of control share: the store, the clock, the settings, and the edges."""

from dataclasses import dataclass
from typing import Protocol

from karez.core.metrics import Metrics
from karez.core.ports import BlobStore, Clock, Fabric
from karez.core.settings import Settings
from karez.core.stores.store import Store
from karez.server.controllers.node_eviction import NodeEviction
from karez.serving.replica_processes import ServingDeps
from karez.training.controller.controller_deps import ControllerDeps


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """What the controllers work with once the fabric is connected."""

    fabric: Fabric
    deps: ControllerDeps
    serving: ServingDeps
    eviction: NodeEviction
    uploads: BlobStore
    """Where unfinished uploads are swept."""


class ControlContext(Protocol):
    """What the controllers share with the services of control."""

    @property
    def store(self) -> Store:
        """The store of the cloud."""
        ...

    @property
    def clock(self) -> Clock:
        """The clock of control."""
        ...

    @property
    def metrics(self) -> Metrics:
        """Records what happens in control."""
        ...

    @property
    def settings(self) -> Settings:
        """The settings of the cloud."""
        ...
