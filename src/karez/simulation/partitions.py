"""Splits nodes and jobs into partitions by project, and prepares the replay of each."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from karez.core.identity import Project
from karez.core.nodes import Node
from karez.scheduling.decision_log import ClusterDelta, RecordedEngine, expected_requests
from karez.scheduling.placement.capacity import SLOTS
from karez.scheduling.queue.order import SchedulingPolicy
from karez.simulation.failures import Outage
from karez.simulation.inventories import PROJECT
from karez.simulation.replay import Replay
from karez.simulation.trace_gangs import fitting_jobs
from karez.simulation.trace_job import TraceJob


def partitions(
    nodes: Sequence[Node], jobs: Sequence[TraceJob]
) -> Mapping[str, tuple[Sequence[Node], Sequence[TraceJob]]]:
    """Nodes and jobs by project, for projects with nodes of their own; "" is for the others."""
    nodes_of: dict[str, list[Node]] = {}
    for node in nodes:
        nodes_of.setdefault(node.labels.get(PROJECT, ""), []).append(node)
    jobs_of: dict[str, list[TraceJob]] = {}
    for job in jobs:
        jobs_of.setdefault(job.project if job.project in nodes_of else "", []).append(job)
    names = nodes_of.keys() | jobs_of.keys()
    return {name: (nodes_of.get(name, ()), jobs_of.get(name, ())) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Outages and limits of a replay, and the functions that it calls."""

    on_end: Callable[[], object]
    """Called after each end of a job."""
    outages: Sequence[Outage] = ()
    write: Callable[[str], object] | None = None
    """Takes the lines of the decision log."""
    projects: Mapping[str, Project] = field(default_factory=dict)


def replay_of(
    nodes: Sequence[Node],
    jobs: Sequence[TraceJob],
    rules: SchedulingPolicy,
    hooks: Hooks,
    *,
    known: bool,
) -> tuple[Replay, int]:
    """A replay of one partition, and the number of jobs left out as too large for its nodes."""
    present = {device.kind for node in nodes for device in node.devices}
    kinds = tuple(kind for kind in SLOTS if kind in present)
    fitting = fitting_jobs(nodes, jobs, kinds)
    replay = Replay(
        engine_log=RecordedEngine(write=hooks.write),
        nodes=nodes,
        jobs=fitting,
        known=known,
        on_end=hooks.on_end,
        kinds=kinds,
        outages=hooks.outages,
        first=_first_step(nodes, fitting, rules, hooks),
    )
    return replay, len(jobs) - len(fitting)


def _first_step(
    nodes: Sequence[Node], jobs: Sequence[TraceJob], rules: SchedulingPolicy, hooks: Hooks
) -> ClusterDelta:
    gangs = Counter(job.gang for job in jobs if job.gang is not None)
    return ClusterDelta(
        at=0.0,
        is_reset=True,
        nodes=tuple(nodes),
        policy=rules,
        projects=tuple(hooks.projects.values()) or None,
        expected=expected_requests(gangs),
    )
