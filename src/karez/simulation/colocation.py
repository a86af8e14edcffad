"""Services and training on one pool: how much training gets done in the valleys of the requests.

Replicas follow the requests; an elastic gang trains on what they leave, and gives it back. Beside
it stands what people do without: enough replicas for the peak, and training on the rest.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from karez.core.errors import BadRequest
from karez.core.resources import Node, ResourceRequest
from karez.core.workloads import MAX_SECONDS, MAX_WORKERS, GangSpec, WorkloadId
from karez.scheduling.cluster_state import devices_of
from karez.scheduling.decision_log import ClusterDelta, RecordedEngine, format_decision
from karez.scheduling.decisions import Resize, Start
from karez.scheduling.explain.feasibility import empty_pool
from karez.scheduling.placement.placement import fits, place_gang
from karez.scheduling.queue.order import PendingWorkload, SchedulingPolicy
from karez.simulation.replay import RESIZE_S
from karez.simulation.tables import Line, read_table
from karez.simulation.workloads import instant

MOST_WINDOWS = 1_000_000
MOST_LOAD = 1e12
MOST_WINDOW_S = 30 * 86_400.0
MOST_HEADROOM = 100
CALM_WINDOWS = 3
"""So many windows must want fewer replicas before one is stopped: one quiet minute stops none."""
SERVES, TRAINS = 10, 0
"""Priorities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is asked for in each window of time, per second."""

    window_s: float
    load: tuple[float, ...]
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Colocation:
    """How a service and a training gang share a pool."""

    replica: ResourceRequest
    replica_rate: float
    """Load that one replica serves, per second, in the demand's unit."""
    training: GangSpec
    headroom: float = 1.2
    """Replicas are made for so many times the load of the window before."""
    start_s: float = 30.0
    """How long a replica takes until it serves."""

    def __post_init__(self) -> None:
        if not 1e-9 <= self.replica_rate <= MOST_LOAD:
            raise ValueError(f"a replica's rate must be positive, not {self.replica_rate:g}")
        if not 0.01 <= self.headroom <= MOST_HEADROOM:
            raise ValueError(f"headroom is between 0.01 and {MOST_HEADROOM}, not {self.headroom:g}")
        if not 0 <= self.start_s <= MAX_SECONDS:
            raise ValueError(f"a replica cannot take {self.start_s:g} s to start")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """What became of both."""

    name: str
    unserved_pct: float
    """Of all load."""
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
    """What the replicas could serve."""
    training_devices: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ColocationReport:
    """Shared beside split."""

    unit: str
    windows: int
    window_s: float
    devices: float
    shared: Arrangement
    split: Arrangement
    training_gain: float | None
    """Training done on the shared pool, of that on the split one; None: the split one has none."""
    log_sha256: str
    points: tuple[ColocationPoint, ...]


def read_demand(lines: Iterable[str], file: str, window_s: float = 60.0) -> Demand:
    """Requests of Azure's columns, ServeGen's rates, or `at,load` of our own.

    Raises:
        BadRequest: Unknown columns, a cell is out of bounds, or there is no request.
    """
    if not 1 <= window_s <= MOST_WINDOW_S:
        raise BadRequest(problem=f"--window is between 1 s and 30 days, not {window_s:g} s")
    rows = iter(lines)
    first = next(rows, "")
    heads = {head.strip() for head in first.split(",")}
    both = (line for part in ([first], rows) for line in part)
    if "TIMESTAMP" in heads:
        azure = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
        found = [_azure(line) for line in read_table(both, file, azure)]
        return _summed(found, window_s, "tokens/s", file, is_rate=False)
    if "window_start_s" in heads:
        rates = ("window_start_s", "rate_rps")
        found = [_rate(line, *rates) for line in read_table(both, file, rates)]
        return _summed(found, SERVEGEN_S, "requests/s", file, is_rate=True)
    if "at" in heads:
        found = [_rate(line, "at", "load") for line in read_table(both, file, ("at", "load"))]
        return _summed(found, window_s, "load/s", file, is_rate=True)
    raise BadRequest(
        problem=f"in {file}, line 1: these are the columns of no request trace that is known",
        fix="Name TIMESTAMP,ContextTokens,GeneratedTokens (Azure), window_start_s,rate_rps "
        "(ServeGen), or at,load.",
    )


SERVEGEN_S = 600.0
"""Length of ServeGen's windows."""


def _azure(line: Line) -> tuple[float, float]:
    tokens = line.whole("ContextTokens") + line.whole("GeneratedTokens")
    return instant(line, "TIMESTAMP"), float(tokens)


def _rate(line: Line, at: str, rate: str) -> tuple[float, float]:
    return instant(line, at), line.number_in(rate, high=1e12)


def _summed(
    found: Sequence[tuple[float, float]], window_s: float, unit: str, file: str, *, is_rate: bool
) -> Demand:
    if not found:
        raise BadRequest(problem=f"the file {file} holds no request")
    at = np.array([pair[0] for pair in found])
    windows = ((at - at.min()) // window_s).astype(np.int64)
    if int(windows.max()) >= MOST_WINDOWS:
        raise BadRequest(
            problem=f"in {file}: the requests span more than {MOST_WINDOWS} windows of "
            f"{window_s:g} s",
            fix="Give a longer --window.",
        )
    load = np.zeros(int(windows.max()) + 1)
    np.add.at(load, windows, np.array([pair[1] for pair in found]))
    per_second = load if is_rate else load / window_s
    return Demand(window_s=window_s, load=tuple(per_second.tolist()), unit=unit)


def wanted(demand: Demand, sharing: Colocation) -> list[int]:
    """Replicas in each window: by the load of the window before, falling only after a calm."""
    rate = sharing.replica_rate / sharing.headroom
    raw = [max(1, math.ceil(load / rate)) for load in demand.load]
    shifted = [raw[0], *raw[:-1]]
    return [max(shifted[max(0, n - CALM_WINDOWS + 1) : n + 1]) for n in range(len(shifted))]


def colocate(
    nodes: Sequence[Node],
    demand: Demand,
    sharing: Colocation,
    *,
    progress: Callable[[int], object] = id,
) -> ColocationReport:
    """Run both arrangements. `progress` hears how many windows are done.

    Raises:
        BadRequest: The pool does not hold the peak's replicas beside the smallest gang.
    """
    counts = wanted(demand, sharing)
    peak = max(counts)
    if peak > MAX_WORKERS:
        raise BadRequest(
            problem=f"the peak would take {peak} replicas", fix="Give a larger --replica-rate."
        )
    empty = empty_pool(nodes)
    replicas = GangSpec(min=peak, want=peak, each=(sharing.replica,))
    if place_gang(replicas, empty) is None or not fits(sharing.training, empty):
        raise BadRequest(
            problem=f"the pool does not hold {peak} replicas for the peak beside "
            f"{sharing.training.min} training workers",
            fix="Take a larger inventory, a faster replica, or a smaller gang.",
        )
    split = _split(nodes, demand, sharing, counts)
    shared, points, digest = _shared(nodes, demand, sharing, counts, progress)
    gain = None
    if split.training_device_hours:
        gain = shared.training_device_hours / split.training_device_hours
    return ColocationReport(
        unit=demand.unit,
        windows=len(demand.load),
        window_s=demand.window_s,
        devices=empty.inventory.capacity_milli / 1000,
        shared=shared,
        split=split,
        training_gain=gain,
        log_sha256=digest,
        points=points,
    )


def _split(
    nodes: Sequence[Node], demand: Demand, sharing: Colocation, counts: Sequence[int]
) -> Arrangement:
    """Replicas for the peak at all times, and the gang on what is left."""
    pool, peak = empty_pool(nodes), max(counts)
    place_gang(GangSpec(min=peak, want=peak, each=(sharing.replica,)), pool)
    most = GangSpec(
        min=sharing.training.min, want=sharing.training.most, each=sharing.training.each
    )
    grants = place_gang(most, pool) or ()
    hours = len(demand.load) * demand.window_s / 3600
    capacity = peak * sharing.replica_rate
    unserved = sum(max(0.0, load - capacity) for load in demand.load)
    return Arrangement(
        name="split",
        unserved_pct=100 * unserved / (sum(demand.load) or 1.0),
        training_device_hours=devices_of(grants) * hours,
        replicas_mean=float(peak),
        replicas_peak=peak,
        resizes=0,
    )


def _shared(
    nodes: Sequence[Node],
    demand: Demand,
    sharing: Colocation,
    counts: Sequence[int],
    progress: Callable[[int], object],
) -> tuple[Arrangement, tuple[ColocationPoint, ...], str]:
    cloud = _Shared(sharing, nodes)
    points, unserved = [], 0.0
    for number, (load, count) in enumerate(zip(demand.load, counts, strict=True)):
        at = number * demand.window_s
        cloud.advance(at, count)
        capacity = cloud.ready(at, demand.window_s) * sharing.replica_rate
        unserved += max(0.0, load - capacity)
        cloud.train(demand.window_s)
        points.append(
            ColocationPoint(
                at_s=at, load=load, capacity=capacity, training_devices=cloud.training_devices
            )
        )
        progress(number + 1)
    arrangement = Arrangement(
        name="shared",
        unserved_pct=100 * unserved / (sum(demand.load) or 1.0),
        training_device_hours=cloud.trained_s / 3600,
        replicas_mean=cloud.replica_windows / max(1, len(counts)),
        replicas_peak=max(counts),
        resizes=cloud.resizes,
    )
    return arrangement, tuple(points), cloud.digest()


class _Shared:
    """The production desk with replicas that come and go, and one gang that trains."""

    def __init__(self, sharing: Colocation, nodes: Sequence[Node]) -> None:
        """The gang stands in line first."""
        self.sharing = sharing
        self.replicas: list[WorkloadId] = []
        self.trained_s = 0.0
        self.resizes = 0
        self.replica_windows = 0
        self._lines: list[str] = []
        self._recorder = RecordedEngine()
        self._gang = WorkloadId("training")
        self._made = 0
        self._pending: list[WorkloadId] = []
        self._serves_at: dict[WorkloadId, float] = {}
        self._paused_s = 0.0
        self._first = ClusterDelta(
            at=0.0,
            is_reset=True,
            nodes=tuple(nodes),
            policy=SchedulingPolicy(preempts=True, elastic=True),
            arrived=(
                PendingWorkload(
                    id=self._gang,
                    project="training",
                    gang=sharing.training,
                    priority=TRAINS,
                    since=0.0,
                    preemptible=True,
                ),
            ),
        )

    @property
    def training_devices(self) -> float:
        """Devices that train now."""
        run = self._recorder.engine.cluster.running.get(self._gang)
        return devices_of(run.workers) if run is not None else 0.0

    def ready(self, at: float, window_s: float) -> float:
        """Replicas that serve, on average over a window: each once it has started."""
        spans = (at + window_s - self._serves_at[one] for one in self.replicas)
        return sum(min(1.0, max(0.0, span / window_s)) for span in spans)

    def advance(self, at: float, count: int) -> None:
        """Bring the replicas to a number, as far as there is room."""
        have = len(self.replicas) + len(self._pending)
        came = [self._replica(at) for _ in range(max(0, count - have))]
        gone: list[WorkloadId] = []
        while len(self.replicas) > count:
            gone.append(self.replicas.pop())
        step = ClusterDelta(
            at=at,
            is_reset=self._first.is_reset,
            nodes=self._first.nodes,
            policy=self._first.policy,
            ended=tuple(gone),
            arrived=(*came, *self._first.arrived),
        )
        self._first = ClusterDelta(at=0.0)
        for act in self._recorder.advance(step):
            self._lines.append(format_decision(at, act))
            if isinstance(act, Start) and act.id != self._gang:
                self._pending.remove(act.id)
                self.replicas.append(act.id)
                self._serves_at[act.id] = at + self.sharing.start_s
            elif isinstance(act, Resize):
                self.resizes += 1
                self._paused_s += RESIZE_S
        self.replica_windows += len(self.replicas)

    def _replica(self, at: float) -> PendingWorkload:
        self._made += 1
        ident = WorkloadId(f"replica-{self._made}")
        self._pending.append(ident)
        return PendingWorkload(
            id=ident,
            project="serving",
            gang=GangSpec(each=(self.sharing.replica,)),
            priority=SERVES,
            since=at,
            order=self._made,
            preemptible=False,
        )

    def train(self, span_s: float) -> None:
        """Time passes."""
        works_s = max(0.0, span_s - self._paused_s)
        self.trained_s += works_s * self.training_devices
        self._paused_s = 0.0

    def digest(self) -> str:
        """Of all decisions."""
        return hashlib.sha256("\n".join([*self._lines, ""]).encode()).hexdigest()
