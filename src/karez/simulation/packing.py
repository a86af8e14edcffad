"""Packing simulation: how full a pool gets when workers arrive one by one and none leaves.

The experiment of Q. Weng et al., "Beware of Fragmentation", USENIX ATC 2023: the trace's workers
in random order, some cloned or dropped until they ask for `load` times the pool.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

import numpy as np

from karez.core.errors import BadRequest
from karez.scheduling.placement.inventory import CPU, Inventory, Row, Shape, build
from karez.scheduling.placement.node_selector import NodeSelector
from karez.scheduling.placement.request_mix import PPM, request_mix
from karez.scheduling.placement.scores import Policy, fragmentation
from karez.simulation.openb import PodRequest

MAX_MISSES = 1000
"""Clones in a row that may be too large before no more are tried."""
POLICIES = {"best-fit": Policy.BEST_FIT, "fgd": Policy.FGD, "karez": Policy.KAREZ}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """State of the pool at one arrival percent, in percent of its accelerators."""

    arrived_pct: int
    allocated_pct: float
    fragmented_pct: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PackingRun:
    """One run: one order of arrival."""

    seed: int
    placed: int
    refused: int
    points: tuple[Point, ...]

    def at(self, arrived_pct: int) -> Point | None:
        """The point at an arrival percent; None if the run did not get that far."""
        return next((point for point in self.points if point.arrived_pct == arrived_pct), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Mean and standard deviation over several runs."""

    mean: float
    sd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PackingPoint:
    """State of the pool at one arrival percent, over all runs."""

    arrived_pct: int
    allocated_pct: Spread
    fragmented_pct: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class PackingReport:
    """Results of all runs of one policy."""

    policy: str
    load: float
    nodes: int
    devices: float
    pods: int
    seeds: tuple[int, ...]
    allocated_pct_at_100: float | None
    fragmented_pct_at_100: float | None
    allocated_pct_at_100_sd: float | None
    fragmented_pct_at_100_sd: float | None
    points: tuple[PackingPoint, ...]
    runs: tuple[PackingRun, ...]


def pack(
    rows: Sequence[Row], pods: Sequence[PodRequest], policy: Policy, seed: int, load: float
) -> PackingRun:
    """Run one order of arrival.

    Raises:
        BadRequest: The pool has no accelerators, or no worker asks for one.
    """
    inventory = build(rows)
    capacity = inventory.capacity_milli
    base = [pod.shape(inventory) for pod in pods]
    if not capacity or not any(shape.devices for shape in base):
        raise BadRequest(problem="packing needs nodes with devices and workers that ask for some")
    selector = NodeSelector(
        inventory=inventory, mix=request_mix(base, inventory.supply), policy=policy
    )
    points: list[Point] = []
    arrived = allocated = placed = refused = 0
    for shape in arrivals(base, capacity, seed, load):
        arrived += shape.device_milli
        found = selector.select(shape)
        if found is None:
            refused += 1
        else:
            placed += 1
            allocated += shape.device_milli
            inventory.allocate(found[0], shape, found[1])
        if arrived * 100 // capacity > (points[-1].arrived_pct if points else 0):
            wasted = _fragmented(inventory, selector)
            pct = arrived * 100 // capacity
            points += [
                Point(
                    arrived_pct=passed,
                    allocated_pct=100 * allocated / capacity,
                    fragmented_pct=100 * wasted / capacity,
                )
                for passed in range(points[-1].arrived_pct + 1 if points else 1, pct + 1)
            ]
    return PackingRun(seed=seed, placed=placed, refused=refused, points=tuple(points))


def arrivals(base: Sequence[Shape], capacity_milli: int, seed: int, load: float) -> list[Shape]:
    """The trace's workers in random order, cloned or dropped until they ask for load * capacity."""
    chance = np.random.default_rng(seed)
    shapes, limit = list(base), load * capacity_milli
    asked = sum(shape.device_milli for shape in shapes)
    while asked > limit:
        asked -= shapes.pop(int(chance.integers(len(shapes)))).device_milli
    misses = 0
    while misses < MAX_MISSES:
        clone = base[int(chance.integers(len(base)))]
        if asked + clone.device_milli <= limit:
            shapes.append(clone)
            asked += clone.device_milli
            misses = 0
        elif asked >= capacity_milli:
            break
        else:  # a small pool, for which this one is too large: another may do
            misses += 1
    return [shapes[index] for index in chance.permutation(len(shapes))]


def packing(
    rows: Sequence[Row],
    pods: Sequence[PodRequest],
    *,
    policy: str,
    seeds: Sequence[int],
    load: float,
    progress: Callable[[int], object] = id,
) -> PackingReport:
    """Run each seed and summarise; `progress` is called with the number of runs done."""
    runs = []
    for done, seed in enumerate(seeds, 1):
        runs.append(pack(rows, pods, POLICIES[policy], seed, load))
        progress(done)
    reached = min(len(run.points) for run in runs)
    points = tuple(
        PackingPoint(
            arrived_pct=index + 1,
            allocated_pct=_spread([run.points[index].allocated_pct for run in runs]),
            fragmented_pct=_spread([run.points[index].fragmented_pct for run in runs]),
        )
        for index in range(reached)
    )
    full = next((point for point in points if point.arrived_pct == 100), None)
    return PackingReport(
        policy=policy,
        load=load,
        nodes=len(rows),
        devices=sum(milli for row in rows for _, milli in row.devices) / 1000,
        pods=len(pods),
        seeds=tuple(seeds),
        allocated_pct_at_100=full.allocated_pct.mean if full else None,
        fragmented_pct_at_100=full.fragmented_pct.mean if full else None,
        allocated_pct_at_100_sd=full.allocated_pct.sd if full else None,
        fragmented_pct_at_100_sd=full.fragmented_pct.sd if full else None,
        points=points,
        runs=tuple(runs),
    )


def _fragmented(inventory: Inventory, selector: NodeSelector) -> float:
    """Thousandths of free accelerators that a usual worker could not use."""
    arrays = inventory.arrays
    wasted = fragmentation(arrays.free, arrays.model, arrays.bulk[:, CPU], selector.mix)
    return int(wasted.sum()) / PPM


def _spread(values: Sequence[float]) -> Spread:
    return Spread(mean=fmean(values), sd=pstdev(values))
