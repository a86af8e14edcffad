"""Services and training on one pool: how much training the valleys of the requests allow.

Replicas follow the requests by the rules of a live service (scheduling/autoscaling.py), through the
production scheduler; elastic gangs train on the rest and give it back at the end of a step. The
report compares this with fixed parts of the same pool.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from karez.core.errors import BadRequest
from karez.core.gangs import MAX_WORKERS, GangSpec
from karez.core.nodes import Node
from karez.core.services import MAX_REPLICAS, ServiceSpec
from karez.core.units import MILLI
from karez.scheduling.autoscaling import BUSY, RequestHistory, wanted_replicas
from karez.scheduling.explain.feasibility import empty_pool
from karez.scheduling.placement.placement import fits, place_gang
from karez.simulation.colocation_report import (
    Arrangement,
    Colocation,
    ColocationPoint,
    ColocationReport,
)
from karez.simulation.demand import Demand
from karez.simulation.request_queue import RequestQueue
from karez.simulation.shared_pool import SharedPool

PASS_S = 5.0
"""Seconds between two passes of the scheduler while nothing changes, as live."""
FIRST_S = 60.0
"""The pool begins with the replicas that the first minute needs."""
MOST_UNSERVED_PCT = 0.1
MOST_POINTS = 2000
SLACK = 1e-6


@dataclass(frozen=True, slots=True)
class _Pool:
    """What is the same in all arrangements."""

    demand: Demand
    sharing: Colocation
    devices: float

    @property
    def each(self) -> float:
        """Devices of one replica."""
        return self.sharing.replica.milli / MILLI

    @property
    def span_s(self) -> float:
        return len(self.demand.busy) * self.demand.tick_s

    def use_pct(self, queue: RequestQueue, trained_s: float) -> float:
        answered_s = queue.served / self.sharing.parallel * self.each
        return 100 * (answered_s + trained_s) / (self.devices * self.span_s)

    def serve(self, replicas: int) -> RequestQueue:
        """What a fixed number of replicas serves."""
        queue, tick_s = RequestQueue(self.sharing.patience_s), self.demand.tick_s
        slots = replicas * self.sharing.parallel * tick_s
        for number, busy in enumerate(self.demand.busy):
            queue.serve(number * tick_s, busy * tick_s, slots)
        return queue

    def fixed(self, name: str, replicas: int) -> Arrangement:
        """So many replicas at all times, and training on the rest."""
        queue = self.serve(replicas)
        sharing = self.sharing
        most = sharing.training.most * sharing.gangs * sharing.training.each[0].milli / MILLI
        trained_s = min(most, self.devices - replicas * self.each) * self.span_s
        return Arrangement(
            name=name,
            unserved_pct=queue.unserved_pct,
            waited_p50_s=queue.waited(0.5),
            waited_p99_s=queue.waited(0.99),
            training_device_hours=trained_s / 3600,
            device_use_pct=self.use_pct(queue, trained_s),
            replicas_mean=float(replicas),
            replicas_peak=replicas,
        )

    def enough(self) -> int:
        """The fewest replicas that serve all but a thousandth."""
        low, high = 1, max(1, math.ceil(max(self.demand.busy) / self.sharing.parallel))
        while low < high:
            middle = (low + high) // 2
            if self.serve(middle).unserved_pct <= MOST_UNSERVED_PCT:
                high = middle
            else:
                low = middle + 1
        return low


def colocate(
    nodes: Sequence[Node],
    demand: Demand,
    sharing: Colocation,
    *,
    progress: Callable[[int], object] = id,
) -> ColocationReport:
    """Run all arrangements; `progress` is called with the number of ticks done.

    Raises:
        BadRequest: The pool does not hold the peak's replicas beside the smallest gangs.
    """
    devices = empty_pool(nodes).inventory.capacity_milli / MILLI
    pool = _Pool(demand, sharing, devices)
    enough = pool.enough()
    _check_capacity(nodes, sharing, enough)
    split = pool.fixed("split", enough)
    halves = pool.fixed("halves", max(1, int(devices / 2 / pool.each)))
    fleet = SharedPool(sharing, nodes, _first(demand, sharing))
    shared, points = _share(pool, fleet, progress)
    hours = split.training_device_hours
    reclaims = sorted(fleet.reclaims_s) or [0.0]
    return ColocationReport(
        ticks=len(demand.busy),
        tick_s=demand.tick_s,
        devices=devices,
        shared=shared,
        halves=halves,
        split=split,
        use_gain=shared.device_use_pct / halves.device_use_pct,
        training_gain=shared.training_device_hours / hours if hours else None,
        reclaim_p50_s=reclaims[len(reclaims) // 2],
        reclaim_p99_s=reclaims[min(len(reclaims) - 1, int(0.99 * len(reclaims)))],
        log_sha256=fleet.digest(),
        points=points,
    )


def _check_capacity(nodes: Sequence[Node], sharing: Colocation, peak: int) -> None:
    if peak > MAX_WORKERS:
        raise BadRequest(
            problem=f"the peak would take {peak} replicas", fix="Give a larger --replica-rate."
        )
    empty = empty_pool(nodes)
    replicas = GangSpec(min=peak, want=peak, each=(sharing.replica,))
    training = sharing.training
    least = GangSpec(
        min=training.min * sharing.gangs, want=training.min * sharing.gangs, each=training.each
    )
    if place_gang(replicas, empty) is None or not fits(least, empty):
        raise BadRequest(
            problem=f"the pool does not hold {peak} replicas for the peak beside "
            f"{least.min} training workers",
            fix="Take a larger inventory, a faster replica, or smaller gangs.",
        )


def _first(demand: Demand, sharing: Colocation) -> int:
    """The replicas with which the pool begins: what the first minute needs."""
    busy = max(demand.busy[: max(1, round(FIRST_S / demand.tick_s))])
    return max(1, math.ceil(busy / sharing.parallel / BUSY))


def _share(
    pool: _Pool, fleet: SharedPool, progress: Callable[[int], object]
) -> tuple[Arrangement, tuple[ColocationPoint, ...]]:
    """Let the shared pool follow the demand, tick by tick."""
    demand, sharing = pool.demand, pool.sharing
    queue, history = RequestQueue(sharing.patience_s), RequestHistory(starts_s=sharing.start_s)
    spec = ServiceSpec(
        name="service",
        model="any",
        replicas=1,
        min_replicas=1,
        max_replicas=min(MAX_REPLICAS, max(1, int(pool.devices / pool.each))),
        parallel=sharing.parallel,
    )
    tick_s, points = demand.tick_s, list[ColocationPoint]()
    held_s, replica_s, peak, decided_at = 0.0, 0.0, 0, -PASS_S
    every = max(1, len(demand.busy) // MOST_POINTS)
    for number, busy in enumerate(demand.busy):
        at = number * tick_s
        ready, training = fleet.ready(at), fleet.training_devices
        held_s += training * tick_s
        replica_s += fleet.count * tick_s
        peak = max(peak, fleet.count)
        done = queue.serve(at, busy * tick_s, ready * sharing.parallel * tick_s)
        waiting = queue.waiting / demand.answer_s
        slots = ready * sharing.parallel if waiting else math.inf
        history.record(at, done / tick_s + waiting, slots - SLACK)
        wanted = wanted_replicas(spec, history.demand(), current=fleet.count, now=at)
        if wanted != fleet.count or at - decided_at >= PASS_S:
            fleet.advance(at, wanted)
            decided_at = at
        if number % every == 0:
            points.append(
                ColocationPoint(
                    at_s=at,
                    load=busy / sharing.parallel,
                    capacity=ready,
                    training_devices=training,
                )
            )
        progress(number + 1)
    trained_s = max(0.0, held_s - fleet.lost_s)
    shared = Arrangement(
        name="shared",
        unserved_pct=queue.unserved_pct,
        waited_p50_s=queue.waited(0.5),
        waited_p99_s=queue.waited(0.99),
        training_device_hours=trained_s / 3600,
        device_use_pct=pool.use_pct(queue, trained_s),
        replicas_mean=replica_s / pool.span_s,
        replicas_peak=peak,
        resizes=fleet.resizes,
    )
    return shared, tuple(points)
