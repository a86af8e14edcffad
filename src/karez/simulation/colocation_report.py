"""How services and training gangs share a pool: the parameters, and the report."""

from dataclasses import dataclass

from karez.core.gangs import GangSpec
from karez.core.jobs import MAX_SECONDS
from karez.core.resource_requests import ResourceRequest

MOST_LOAD = 1e12
MOST_PARALLEL, MOST_GANGS, MOST_TIMES = 4096, 10_000, 1e6
LEAVE_S = 2.0
"""Seconds from the end of a step until a device that a gang gives up is free: a new generation of
the others and the end of the process take 1 to 3 s (docs/scheduling.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Colocation:
    """Parameters of a service and of training gangs that share a pool."""

    replica: ResourceRequest
    replica_rate: float
    """Load that one replica serves per second, in tokens, requests or load, as the trace has it."""
    training: GangSpec
    """Each of the gangs."""
    gangs: int = 1
    parallel: int = 8
    """Requests that a replica answers at once."""
    start_s: float = 10.0
    """Seconds until a replica that has its device serves."""
    step_s: float = 1.0
    """Seconds of a step of training: a gang gives devices up at the end of one."""
    patience_s: float = 10.0
    """How long a request waits for a replica before it counts as unserved."""
    answer_s: float = 10.0
    """Seconds of an answer, where the requests do not tell."""
    times: float = 1.0
    """Factor on all requests."""

    def __post_init__(self) -> None:
        if not 1e-9 <= self.replica_rate <= MOST_LOAD:
            raise ValueError(f"a replica's rate must be positive, not {self.replica_rate:g}")
        for value, low, high, what in (
            (self.gangs, 1, MOST_GANGS, "training gangs"),
            (self.parallel, 1, MOST_PARALLEL, "answers at once"),
            (self.start_s, 0, MAX_SECONDS, "seconds for a replica to start"),
            (self.step_s, 1e-3, MAX_SECONDS, "seconds for a step"),
            (self.patience_s, 0, MAX_SECONDS, "seconds of patience"),
            (self.answer_s, 1e-3, MAX_SECONDS, "seconds for an answer"),
            (self.times, 1e-6, MOST_TIMES, "times the requests"),
        ):
            if not low <= value <= high:
                raise ValueError(f"there are {low:g} to {high:g} {what}, not {value:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """Results of the service and of training under one arrangement."""

    name: str
    unserved_pct: float
    """Load that waited longer than callers do, in percent of all load."""
    waited_p50_s: float
    waited_p99_s: float
    """Seconds that load waited for a replica."""
    training_device_hours: float
    """Without what changes of size cost."""
    device_use_pct: float
    """Part of all device time that answered requests or trained."""
    replicas_mean: float
    replicas_peak: int
    resizes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ColocationPoint:
    """One instant of the shared pool."""

    at_s: float
    load: float
    """Replicas that the requests keep busy."""
    capacity: float
    """Replicas that serve."""
    training_devices: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ColocationReport:
    """Results of the shared pool beside those of fixed parts."""

    ticks: int
    tick_s: float
    devices: float
    shared: Arrangement
    halves: Arrangement
    """Half of the devices for replicas at all times, and training on the other half."""
    split: Arrangement
    """As many replicas at all times as serve all but a thousandth, and training on the rest."""
    use_gain: float
    """Device use of the shared pool as a multiple of that of halves."""
    training_gain: float | None
    """Training on the shared pool as a multiple of the split pool's; None if that has none."""
    reclaim_p50_s: float
    reclaim_p99_s: float
    """Seconds from the decision until a gang's device is free, the rest of its step included."""
    log_sha256: str
    points: tuple[ColocationPoint, ...]
