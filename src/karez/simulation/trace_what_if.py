"""Replays a trace twice: as it was, and with other nodes, quotas or jobs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from karez.core.errors import NotFound
from karez.core.explanations import WhatIf
from karez.core.identity import Project
from karez.core.nodes import Node, NodeId, NodeState
from karez.core.units import MILLI
from karez.simulation.queue_report import QueueReport
from karez.simulation.queueing import Extras, queueing
from karez.simulation.trace_job import TraceJob


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectWhatIf:
    """Times of one project before and after the change, in seconds."""

    project: str
    jobs: int
    queued_before_s: float
    queued_after_s: float
    jct_before_s: float
    jct_after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceWhatIf:
    """The answer to `karez what-if --trace`."""

    nodes_before: int
    nodes_after: int
    jct_before_s: float
    jct_after_s: float
    queued_before_s: float
    queued_after_s: float
    utilisation_before_pct: float
    utilisation_after_pct: float
    left_out_before: int
    left_out_after: int
    asked_jct_s: float | None
    """Completion time of the hypothetical workload; None if there is none."""
    projects: tuple[ProjectWhatIf, ...]


ASKED = "hypothetical"
"""Class of the hypothetical workload."""


def trace_what_if(
    nodes: Sequence[Node],
    jobs: Sequence[TraceJob],
    question: WhatIf,
    *,
    runs_s: float = 3600.0,
    progress: Callable[[int], object] = id,
) -> TraceWhatIf:
    """Replay a trace as it was and with the change; a submitted gang arrives with the first job.

    Raises:
        NotFound: A node that is named does not exist.
    """
    total = len(jobs)
    before = queueing(nodes, jobs, policy="karez", known=False, extras=Extras(progress=progress))
    limits = {name: Project(name=name, quota=dict(quota)) for name, quota in question.quota.items()}
    after = queueing(
        _nodes(nodes, question),
        _jobs(jobs, question, runs_s),
        policy="karez",
        known=False,
        extras=Extras(progress=lambda done: progress(total + done), projects=limits),
    )
    return _outlook(before, after)


def _outlook(before: QueueReport, after: QueueReport) -> TraceWhatIf:
    then = {one.name: one for one in after.projects}
    asked = next((one for one in after.classes if one.name == ASKED), None)
    rows = tuple(
        ProjectWhatIf(
            project=one.name,
            jobs=one.jct_s.jobs,
            queued_before_s=one.queued_s.mean,
            queued_after_s=then[one.name].queued_s.mean,
            jct_before_s=one.jct_s.mean,
            jct_after_s=then[one.name].jct_s.mean,
        )
        for one in before.projects
        if one.name in then
    )
    return TraceWhatIf(
        nodes_before=before.nodes,
        nodes_after=after.nodes,
        jct_before_s=before.jct_s.mean,
        jct_after_s=after.jct_s.mean,
        queued_before_s=before.queued_s.mean,
        queued_after_s=after.queued_s.mean,
        utilisation_before_pct=before.utilisation_pct,
        utilisation_after_pct=after.utilisation_pct,
        left_out_before=before.left_out,
        left_out_after=after.left_out,
        asked_jct_s=None if asked is None else asked.jct_s.mean,
        projects=tuple(sorted(rows, key=_change, reverse=True)),
    )


def _change(row: ProjectWhatIf) -> float:
    return float(np.abs(row.queued_after_s - row.queued_before_s) * row.jobs)


def _nodes(nodes: Sequence[Node], question: WhatIf) -> list[Node]:
    known: Mapping[NodeId, Node] = {node.id: node for node in nodes}
    for ident in (*question.remove, *([question.like] if question.like else ())):
        if ident not in known:
            raise NotFound(noun="node", name=ident)
    found = [node for node in nodes if node.id not in question.remove]
    if question.like is not None:
        model = replace(known[question.like], state=NodeState.READY)
        names = (NodeId(f"new-{n:06d}") for n in range(question.add + len(known)))
        free = [name for name in names if name not in known][: question.add]
        found += [replace(model, id=name) for name in free]
    return found


def _jobs(jobs: Sequence[TraceJob], question: WhatIf, runs_s: float) -> list[TraceJob]:
    if question.submit is None:
        return list(jobs)
    gang = question.submit
    asked = TraceJob(
        arrives_s=0.0,
        runs_s=runs_s,
        devices=gang.want * gang.each[0].milli // MILLI,
        project=question.project,
        gang=gang,
        sort=ASKED,
        priority=question.priority,
    )
    return [asked, *jobs]
