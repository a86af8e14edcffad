"""Changes that decisions make to the cluster state: start, evict, shrink, relocate."""

from collections.abc import Mapping
from dataclasses import replace

from karez.core.grants import Grant
from karez.core.workloads import WorkloadId
from karez.scheduling.cluster_state import ClusterState, RunningWorkload
from karez.scheduling.decisions import Action, Preempt, Resize, Start
from karez.scheduling.preemption.preemption import PreemptionPlan
from karez.scheduling.queue.order import PendingWorkload


def start_workload(
    cluster: ClusterState, waiting: PendingWorkload, grants: tuple[Grant, ...], now: float
) -> Start:
    """Count a workload as running; the pool holds its grants already."""
    cluster.add(as_started(waiting, grants, now))
    cluster.just_started.add(waiting.id)
    return Start(id=waiting.id, grants=grants)


def as_started(waiting: PendingWorkload, grants: tuple[Grant, ...], now: float) -> RunningWorkload:
    """A queued workload as one that starts now with these grants."""
    run = RunningWorkload(
        id=waiting.id, project=waiting.project, grants=grants, started_at=now, waiting=waiting
    )
    ends_by = waiting.ends_by(now)
    if waiting.expected_s is not None:
        ends_by = now + waiting.remaining_s(waiting.done_s) / run.work_rate
    return replace(run, ends_by=ends_by)


def evict_workload(cluster: ClusterState, ident: WorkloadId, now: float) -> PendingWorkload:
    """Remove a preempted workload, whose devices are released already, and return it as pending."""
    run = cluster.remove(ident)
    waiting = run.as_pending
    return replace(waiting, done_s=run.done_s(now) if waiting.resumes else 0.0)


def release_stopped(cluster: ClusterState, now: float) -> list[Preempt]:
    """Release the devices of workloads that are to stop, and go on later.

    These are the preemptible ones on a draining node, and those of a project that may spend no
    more: of these only such as lose nothing, for what they have done is paid for.
    """
    if not cluster.draining and not cluster.over_budget:
        return []
    leaving = [
        run
        for run in cluster.running.values()
        if run.can_stop
        and (
            (run.project in cluster.over_budget and run.as_pending.resumes)
            or any(grant.node in cluster.draining for grant in run.grants)
        )
    ]
    for run in leaving:
        cluster.pool.release(run.grants)
    return [Preempt(id=r.id, by=None, lost_device_s=r.stop_cost_device_s(now)) for r in leaving]


def preempt_workloads(
    cluster: ClusterState, plan: PreemptionPlan, by: WorkloadId, now: float
) -> list[Action]:
    """Shrink the gangs that a preemption plan shrinks, and name the workloads that it stops."""
    made: list[Action] = []
    for ident, keeps in plan.keeps.items():
        if keeps:
            cluster.resize(ident, keeps, now)
            made.append(Resize(id=ident, grants=keeps, by=by))
        else:
            lost = cluster.running[ident].stop_cost_device_s(now)
            made.append(Preempt(id=ident, by=by, lost_device_s=lost))
    return made


def relocate_workloads(
    cluster: ClusterState,
    targets: Mapping[WorkloadId, tuple[Grant, ...]],
    now: float,
    by: WorkloadId | None = None,
) -> list[Action]:
    """Restart running workloads on target grants, which are free once all have left their own."""
    made: list[Action] = []
    runs = [cluster.remove(ident) for ident in targets]
    for run in runs:
        cluster.pool.release(run.grants)
    for run in runs:
        made.append(Preempt(id=run.id, by=by, lost_device_s=run.stop_cost_device_s(now)))
        cluster.pool.reserve(targets[run.id])
        restarted = replace(run.as_pending, done_s=run.done_s(now))
        made.append(start_workload(cluster, restarted, targets[run.id], now))
    return made
