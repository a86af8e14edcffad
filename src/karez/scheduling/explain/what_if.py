"""What-if questions: compares the next decisions with those of a hypothetical cluster."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from karez.core.errors import NotFound
from karez.core.explanations import WhatIf, WhatIfResult, WorkloadDiff
from karez.core.identity import Project
from karez.core.nodes import Node, NodeId, NodeState
from karez.core.workloads import WorkloadId
from karez.scheduling.decisions import Preempt, Resize, Start, Wait
from karez.scheduling.queue.order import PendingWorkload, SchedulingPolicy
from karez.scheduling.snapshot import AllocatedWorkload, Snapshot, plan

HYPOTHETICAL: Final = WorkloadId("hypothetical")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """The outcome for a workload, and the reason."""

    what: str
    reason: str = ""


def what_if(
    snapshot: Snapshot, question: WhatIf, *, now: float, policy: SchedulingPolicy | None = None
) -> WhatIfResult:
    """Compare the next decisions with and without a change.

    Raises:
        NotFound: The question names a node or project that does not exist.
    """
    changed = _change(snapshot, question, now)
    before = _outcomes(snapshot, snapshot, now, policy)
    after = _outcomes(changed, snapshot, now, policy)
    projects = {waiting.id: waiting.project for waiting in changed.waiting}
    projects.update((run.allocation.workload, run.project) for run in snapshot.running)
    effects = [
        WorkloadDiff(
            id=ident,
            project=projects[ident],
            before=before[ident].what if ident in before else "is not there",
            after=outcome.what,
            reason=outcome.reason,
        )
        for ident, outcome in sorted(after.items())
        if ident not in before or before[ident].what != outcome.what
    ]
    return WhatIfResult(
        effects=tuple(effects),
        waiting_before=_count_waiting(before),
        waiting_after=_count_waiting(after),
    )


def _count_waiting(outcomes: Mapping[WorkloadId, _Outcome]) -> int:
    return sum(outcome.what.endswith("waits") for outcome in outcomes.values())


def _outcomes(
    snapshot: Snapshot, was: Snapshot, now: float, policy: SchedulingPolicy | None
) -> Mapping[WorkloadId, _Outcome]:
    outcomes: dict[WorkloadId, _Outcome] = {}
    projects = {run.allocation.workload: run.project for run in was.running}
    held = {run.allocation.workload: len(run.allocation.grants) for run in snapshot.running}
    for run in was.running:
        workers = held[run.allocation.workload]
        lost = len(run.allocation.grants) - workers
        what = f"runs with {_workers(workers)}"
        reason = f"{_workers(lost)} on nodes that are gone" if lost else ""
        outcomes[run.allocation.workload] = _Outcome(what=what, reason=reason)
    for decision in plan(snapshot, now=now, policy=policy):
        match decision:
            case Start(id=ident, grants=grants):
                what = f"starts with {_workers(len(grants))}"
                outcomes[ident] = _Outcome(what=what)
            case Preempt(id=ident, by=by):
                barred = snapshot.over_budget.get(projects.get(ident, ""), "its node is needed")
                why = f"{by} starts in its place" if by else barred
                outcomes[ident] = _Outcome(what="is stopped and waits", reason=why)
            case Resize(id=ident, grants=grants):
                outcomes[ident] = _Outcome(what=f"goes on with {_workers(len(grants))}")
            case Wait(id=ident, reason=reason) if ident not in outcomes:
                outcomes[ident] = _Outcome(what="waits", reason=reason)
            case Wait():
                pass  # preempted by an earlier decision
    return outcomes


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
    node_of = {node.id: node for node in snapshot.nodes}
    for ident in (*question.remove, *([question.like] if question.like else ())):
        if ident not in node_of:
            raise NotFound(noun="node", name=ident)
    nodes = [node for node in snapshot.nodes if node.id not in question.remove]
    if question.like is not None:
        model = replace(node_of[question.like], state=NodeState.READY)
        nodes += [replace(model, id=NodeId(f"new-{n}")) for n in range(question.add)]
    return nodes


def _project(snapshot: Snapshot, name: str) -> Project:
    if name not in snapshot.projects:
        raise NotFound(noun="project", name=name)
    return snapshot.projects[name]


def _without(run: AllocatedWorkload, gone: tuple[NodeId, ...]) -> AllocatedWorkload:
    left = tuple(grant for grant in run.allocation.grants if grant.node not in gone)
    return replace(run, allocation=replace(run.allocation, grants=left))
