"""Services and training on one pool: how much training the valleys of the requests allow.

Replicas follow the requests; an elastic gang trains on the rest and gives it back. The report
compares this with the usual split: enough replicas for the peak, and training on the rest.
"""

import math
from collections.abc import Callable, Sequence

from karez.core.errors import BadRequest
from karez.core.gangs import MAX_WORKERS, GangSpec
from karez.core.nodes import Node
from karez.scheduling.cluster_state import devices_of
from karez.scheduling.explain.feasibility import empty_pool
from karez.scheduling.placement.placement import fits, place_gang
from karez.simulation.colocation_report import (
    Arrangement,
    Colocation,
    ColocationPoint,
    ColocationReport,
)
from karez.simulation.demand import Demand
from karez.simulation.shared_pool import SharedPool

CALM_WINDOWS = 3
"""Windows in a row that must want fewer replicas before one is stopped."""


def wanted(demand: Demand, sharing: Colocation) -> list[int]:
    """Replicas in each window: by the load of the window before, falling only after a calm."""
    rate = sharing.replica_rate / sharing.headroom
    needed = [max(1, math.ceil(load / rate)) for load in demand.load]
    shifted = [needed[0], *needed[:-1]]
    return [max(shifted[max(0, n - CALM_WINDOWS + 1) : n + 1]) for n in range(len(shifted))]


def colocate(
    nodes: Sequence[Node],
    demand: Demand,
    sharing: Colocation,
    *,
    progress: Callable[[int], object] = id,
) -> ColocationReport:
    """Run both arrangements; `progress` is called with the number of windows done.

    Raises:
        BadRequest: The pool does not hold the peak's replicas beside the smallest gang.
    """
    counts = wanted(demand, sharing)
    _check_capacity(nodes, sharing, max(counts))
    split = _split(nodes, demand, sharing, max(counts))
    pool = SharedPool(sharing, nodes)
    points = _run(pool, demand, counts, progress)
    shared = _shared(pool, demand, points, counts)
    split_hours = split.training_device_hours
    return ColocationReport(
        unit=demand.unit,
        windows=len(demand.load),
        window_s=demand.window_s,
        devices=empty_pool(nodes).inventory.capacity_milli / 1000,
        shared=shared,
        split=split,
        training_gain=shared.training_device_hours / split_hours if split_hours else None,
        log_sha256=pool.digest(),
        points=points,
    )


def _check_capacity(nodes: Sequence[Node], sharing: Colocation, peak: int) -> None:
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


def _split(nodes: Sequence[Node], demand: Demand, sharing: Colocation, peak: int) -> Arrangement:
    """Replicas for the peak at all times, and the gang on the rest."""
    pool, gang = empty_pool(nodes), sharing.training
    place_gang(GangSpec(min=peak, want=peak, each=(sharing.replica,)), pool)
    grants = place_gang(GangSpec(min=gang.min, want=gang.most, each=gang.each), pool) or ()
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


def _run(
    pool: SharedPool, demand: Demand, counts: Sequence[int], progress: Callable[[int], object]
) -> tuple[ColocationPoint, ...]:
    """Let the shared pool follow the demand, window by window."""
    points = []
    for number, (load, count) in enumerate(zip(demand.load, counts, strict=True)):
        at = number * demand.window_s
        pool.advance(at, count)
        capacity = pool.ready(at, demand.window_s) * pool.sharing.replica_rate
        pool.train(demand.window_s)
        points.append(
            ColocationPoint(
                at_s=at, load=load, capacity=capacity, training_devices=pool.training_devices
            )
        )
        progress(number + 1)
    return tuple(points)


def _shared(
    pool: SharedPool,
    demand: Demand,
    points: Sequence[ColocationPoint],
    counts: Sequence[int],
) -> Arrangement:
    unserved = sum(max(0.0, point.load - point.capacity) for point in points)
    return Arrangement(
        name="shared",
        unserved_pct=100 * unserved / (sum(demand.load) or 1.0),
        training_device_hours=pool.trained_s / 3600,
        replicas_mean=pool.replica_windows / max(1, len(counts)),
        replicas_peak=max(counts),
        resizes=pool.resizes,
    )
