"""How a service and a training gang share a pool: the parameters, and the report."""

from dataclasses import dataclass

from karez.core.gangs import GangSpec
from karez.core.jobs import MAX_SECONDS
from karez.core.resource_requests import ResourceRequest

MOST_LOAD = 1e12
MOST_HEADROOM = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Colocation:
    """Parameters of a service and a training gang that share a pool."""

    replica: ResourceRequest
    replica_rate: float
    """Load that one replica serves per second, in the demand's unit."""
    training: GangSpec
    headroom: float = 1.2
    """Capacity of the replicas as a multiple of the load in the window before."""
    start_s: float = 30.0
    """Seconds until a started replica serves."""

    def __post_init__(self) -> None:
        if not 1e-9 <= self.replica_rate <= MOST_LOAD:
            raise ValueError(f"a replica's rate must be positive, not {self.replica_rate:g}")
        if not 0.01 <= self.headroom <= MOST_HEADROOM:
            raise ValueError(f"headroom is between 0.01 and {MOST_HEADROOM}, not {self.headroom:g}")
        if not 0 <= self.start_s <= MAX_SECONDS:
            raise ValueError(f"a replica cannot take {self.start_s:g} s to start")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """Results of the service and of training under one arrangement."""

    name: str
    unserved_pct: float
    """Load that no replica could serve, in percent of all load."""
    training_device_hours: float
    replicas_mean: float
    replicas_peak: int
    resizes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ColocationPoint:
    """One window of the shared pool."""

    at_s: float
    load: float
    capacity: float
    """Load that the replicas could serve."""
    training_devices: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ColocationReport:
    """Results of the shared pool beside those of the split pool."""

    unit: str
    windows: int
    window_s: float
    devices: float
    shared: Arrangement
    split: Arrangement
    training_gain: float | None
    """Training on the shared pool as a multiple of the split pool's; None if that has none."""
    log_sha256: str
    points: tuple[ColocationPoint, ...]
