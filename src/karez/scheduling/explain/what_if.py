"""What would change, and for whom: the same decisions in a cloud that is thought up."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from karez.core.errors import NotFound
from karez.core.explanations import WhatIf, WhatIfResult, WorkloadDiff
from karez.core.identity import Project
from karez.core.resources import Node, NodeId, NodeState
from karez.core.workloads import WorkloadId
from karez.scheduling.decisions import Preempt, Resize, Start, Wait
from karez.scheduling.queue.order import PendingWorkload, SchedulingPolicy
from karez.scheduling.snapshot import AllocatedWorkload, Snapshot, plan

HYPOTHETICAL: Final = WorkloadId("hypothetical")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fate:
    """Where a workload would be, and why."""

    what: str
    reason: str = ""


def what_if(
    snapshot: Snapshot, question: WhatIf, *, now: float, policy: SchedulingPolicy | None = None
) -> WhatIfResult:
    """Compare the next decisions with and without a change.

    Raises:
        NotFound: A node or project that is named does not exist.
    """
    changed = _change(snapshot, question, now)
    before = _fates(snapshot, snapshot, now, policy)
    after = _fates(changed, snapshot, now, policy)
    projects = {one.id: one.project for one in changed.waiting}
    projects.update((run.allocation.workload, run.project) for run in snapshot.running)
    effects = [
        WorkloadDiff(
            id=ident,
            project=projects[ident],
            before=before[ident].what if ident in before else "is not there",
            after=fate.what,
            reason=fate.reason,
        )
        for ident, fate in sorted(after.items())
        if ident not in before or before[ident].what != fate.what
    ]
    return WhatIfResult(
        effects=tuple(effects),
        waiting_before=_count_waiting(before),
        waiting_after=_count_waiting(after),
    )


def _count_waiting(fates: Mapping[WorkloadId, _Fate]) -> int:
    return sum(fate.what.endswith("waits") for fate in fates.values())


def _fates(
    snapshot: Snapshot, was: Snapshot, now: float, policy: SchedulingPolicy | None
) -> Mapping[WorkloadId, _Fate]:
    fates: dict[WorkloadId, _Fate] = {}
    held = {run.allocation.workload: len(run.allocation.grants) for run in snapshot.running}
    for run in was.running:
        workers = held[run.allocation.workload]
        lost = len(run.allocation.grants) - workers
        what = f"runs with {_workers(workers)}"
        reason = f"{_workers(lost)} on nodes that are gone" if lost else ""
        fates[run.allocation.workload] = _Fate(what=what, reason=reason)
    for decision in plan(snapshot, now=now, policy=policy):
        match decision:
            case Start(id=ident, grants=grants):
                what = f"starts with {_workers(len(grants))}"
                fates[ident] = _Fate(what=what)
            case Preempt(id=ident, by=by):
                why = f"{by} starts in its place" if by else "its node is needed"
                fates[ident] = _Fate(what="is stopped and waits", reason=why)
            case Resize(id=ident, grants=grants):
                fates[ident] = _Fate(what=f"goes on with {_workers(len(grants))}")
            case Wait(id=ident, reason=reason) if ident not in fates:
                fates[ident] = _Fate(what="waits", reason=reason)
            case Wait():
                pass  # it was stopped just now
    return fates


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def _change(snapshot: Snapshot, question: WhatIf, now: float) -> Snapshot:
    waiting = list(snapshot.waiting)
    if question.submit is not None:
        asked = PendingWorkload(
            id=HYPOTHETICAL,
            project=_project(snapshot, question.project).name,
            gang=question.submit,
            priority=question.priority,
            since=now,
            order=len(waiting),
        )
        waiting.append(asked)
    projects = dict(snapshot.projects)
    for name, quota in question.quota.items():
        before = _project(snapshot, name)
        projects[name] = replace(before, quota={**before.quota, **quota})
    return replace(
        snapshot,
        nodes=_nodes(snapshot, question),
        waiting=waiting,
        running=[_without(run, question.remove) for run in snapshot.running],
        projects=projects,
    )


def _nodes(snapshot: Snapshot, question: WhatIf) -> list[Node]:
    known = {node.id: node for node in snapshot.nodes}
    for ident in (*question.remove, *([question.like] if question.like else ())):
        if ident not in known:
            raise NotFound(noun="node", name=ident)
    nodes = [node for node in snapshot.nodes if node.id not in question.remove]
    if question.like is not None:
        model = replace(known[question.like], state=NodeState.READY)
        nodes += [replace(model, id=NodeId(f"new-{n}")) for n in range(question.add)]
    return nodes


def _project(snapshot: Snapshot, name: str) -> Project:
    if name not in snapshot.projects:
        raise NotFound(noun="project", name=name)
    return snapshot.projects[name]


def _without(run: AllocatedWorkload, gone: tuple[NodeId, ...]) -> AllocatedWorkload:
    left = tuple(grant for grant in run.allocation.grants if grant.node not in gone)
    return replace(run, allocation=replace(run.allocation, grants=left))
