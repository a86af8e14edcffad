"""Makes gangs of a trace's jobs, and finds the jobs that an empty pool could hold."""

import math
from collections.abc import Sequence

from karez.core.devices import DeviceKind
from karez.core.gangs import GangSpec
from karez.core.nodes import Node
from karez.core.resource_requests import ResourceRequest
from karez.core.units import MILLI
from karez.scheduling.explain.feasibility import empty_pool, infeasible_reason
from karez.scheduling.placement.capacity import Pool
from karez.scheduling.placement.placement import place_gang
from karez.simulation.trace_job import TraceJob

NODE_DEVICES = 8
"""Devices of one node in the traces that karez reads."""


def gang_of(devices: int, kinds: Sequence[DeviceKind]) -> GangSpec:
    """A job as a gang: one worker up to a node's devices, else several of equal size."""
    each = devices if devices <= NODE_DEVICES else math.gcd(devices, NODE_DEVICES)
    needs = tuple(ResourceRequest(kind=kind, milli=each * MILLI) for kind in kinds)
    return GangSpec(min=devices // each, want=devices // each, each=needs)


def fitting_jobs(
    nodes: Sequence[Node], jobs: Sequence[TraceJob], kinds: Sequence[DeviceKind]
) -> list[TraceJob]:
    """The jobs whose gang fits the empty pool."""
    empty = empty_pool(nodes)
    verdicts: dict[GangSpec, bool] = {}
    fitting = []
    for job in jobs:
        if job.gang is None and not kinds:
            continue
        try:
            gang = job.gang or gang_of(job.devices, kinds)
        except ValueError:
            continue  # more workers than a gang may have
        if gang not in verdicts:
            verdicts[gang] = not infeasible_reason(gang, empty) and _fits(gang, empty)
        if verdicts[gang]:
            fitting.append(job)
    return fitting


def _fits(gang: GangSpec, empty: Pool) -> bool:
    return place_gang(gang, empty.fork()) is not None
