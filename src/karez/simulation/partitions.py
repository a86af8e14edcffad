"""Splits nodes and jobs into partitions by project, and prepares the replay of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from karez.core.gangs import GangSpec
from karez.core.identity import Project
from karez.core.nodes import Node
from karez.scheduling.decision_log import ClusterDelta, RecordedEngine
from karez.scheduling.engine import SchedulingEngine
from karez.scheduling.placement.capacity import SLOTS
from karez.scheduling.placement.node_selector import NodeSelector
from karez.scheduling.placement.request_mix import request_mix
from karez.scheduling.placement.scores import Policy
from karez.scheduling.queue.order import QueueOrder, SchedulingPolicy
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
    make_selector = _selector_factory(fitting, rules)
    replay = Replay(
        engine_log=RecordedEngine(write=hooks.write, make_selector=make_selector),
        nodes=nodes,
        jobs=fitting,
        known=known,
        on_end=hooks.on_end,
        kinds=kinds,
        outages=hooks.outages,
        first=_first_step(nodes, rules, hooks),
    )
    return replay, len(jobs) - len(fitting)


def _selector_factory(
    jobs: Sequence[TraceJob], rules: SchedulingPolicy
) -> Callable[[SchedulingEngine], NodeSelector]:
    gangs: list[GangSpec] = [job.gang for job in jobs if job.gang is not None]
    policy = Policy.KAREZ if rules.order == QueueOrder.KAREZ else Policy.BEST_FIT

    def make_selector(engine: SchedulingEngine) -> NodeSelector:
        pool = engine.cluster.pool
        shapes = [pool.shape(gang.each[0]) for gang in gangs]
        return NodeSelector(inventory=pool.inventory, mix=request_mix(shapes), policy=policy)

    return make_selector


def _first_step(nodes: Sequence[Node], rules: SchedulingPolicy, hooks: Hooks) -> ClusterDelta:
    return ClusterDelta(
        at=0.0,
        is_reset=True,
        nodes=tuple(nodes),
        policy=rules,
        projects=tuple(hooks.projects.values()) or None,
    )
