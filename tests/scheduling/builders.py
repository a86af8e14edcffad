"""Workloads, gangs and engines for the tests of scheduling."""

from karez.core.devices import DeviceKind
from karez.core.gangs import GangSpec
from karez.core.identity import Project
from karez.core.nodes import Node
from karez.core.resource_requests import ResourceRequest
from karez.core.workloads import WorkloadId
from karez.scheduling.decisions import Action, Start
from karez.scheduling.engine import SchedulingEngine
from karez.scheduling.queue.order import (
    PendingWorkload,
    SchedulingPolicy,
)
from karez.scheduling.snapshot import Snapshot, engine_from

NPU, GPU = DeviceKind.NPU, DeviceKind.GPU
HOUR_S = 3600.0
ALL = SchedulingPolicy(preempts=True, elastic=True, grows_by_gain=True, defragments=True, fair=True)


def job(name: str, asked: GangSpec, since: float = 0.0, **more: object) -> PendingWorkload:
    fields: dict[str, object] = {"project": "p", "priority": 0, **more}
    return PendingWorkload(id=WorkloadId(name), gang=asked, since=since, **fields)  # type: ignore[arg-type]


def elastic(low: int, want: int, most: int) -> GangSpec:
    return GangSpec(min=low, want=want, max=most, each=(ResourceRequest(kind=NPU),))


def engine_with(
    nodes: list[Node], *projects: Project, policy: SchedulingPolicy = ALL
) -> SchedulingEngine:
    known = {project.name: project for project in projects}
    return engine_from(Snapshot(nodes=nodes, projects=known), policy)


def decide(engine: SchedulingEngine, now: float, *arrivals: PendingWorkload) -> list[Action]:
    for arrival in arrivals:
        engine.add(arrival)
    return engine.decide(now)


def starts(acts: list[Action]) -> list[str]:
    return [act.id for act in acts if isinstance(act, Start)]
