"""Makes room for a workload that does not fit: reclaims, preempts, shrinks or relocates others."""

from dataclasses import dataclass

from karez.core.gangs import GangSpec
from karez.scheduling.backfill import Backfill, start_gain_device_s
from karez.scheduling.cluster_state import ClusterState
from karez.scheduling.decisions import Action
from karez.scheduling.placement.capacity import SLOTS
from karez.scheduling.preemption.candidates import borrowers, candidates, reclaimable
from karez.scheduling.preemption.defragment import plan_defrag_for
from karez.scheduling.preemption.preemption import PreemptionPlan, find_victims, rollback
from karez.scheduling.queue.order import PendingWorkload, SchedulingPolicy
from karez.scheduling.state_changes import preempt_workloads, relocate_workloads, start_workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt to start a pending workload."""

    waiting: PendingWorkload
    gang: GangSpec
    """Its gang, reduced to what the quota allows."""
    until: float | None
    """When the workload ends, if that must be before a node's maintenance."""
    now: float

    def has_waited(self, policy: SchedulingPolicy) -> bool:
        """Whether the workload has waited long enough for a reservation or relocations."""
        return self.now - self.waiting.since > policy.reserve_after_s


def preempt_for(
    cluster: ClusterState,
    policy: SchedulingPolicy,
    backfill: Backfill,
    attempt: Attempt,
    *,
    is_barred: bool,
) -> list[Action]:
    """Preempt or shrink others for a workload, if it is owed their devices or worth the cost.

    `is_barred` is a workload over its quota, which gets only what its project lent.
    """
    plan = _preemption_plan(cluster, policy, backfill, attempt, is_barred=is_barred)
    if plan is None:
        return []
    made = preempt_workloads(cluster, plan, attempt.waiting.id, attempt.now)
    return [*made, start_workload(cluster, attempt.waiting, plan.grants, attempt.now)]


def _preemption_plan(
    cluster: ClusterState,
    policy: SchedulingPolicy,
    backfill: Backfill,
    attempt: Attempt,
    *,
    is_barred: bool,
) -> PreemptionPlan | None:
    if not policy.preempts and not policy.elastic:
        return None
    waiting, until, now = attempt.waiting, attempt.until, attempt.now
    entitled = reclaimable(cluster, waiting) if policy.preempts else None
    if entitled is not None:
        plan = find_victims(cluster, entitled, borrowers(cluster, entitled, now), until, now)
        if plan is not None:
            return plan
    if is_barred:
        return None
    plan = find_victims(cluster, waiting, candidates(cluster, waiting, policy, now), until, now)
    if plan is not None and not backfill.allows(waiting, plan.grants, now):
        rollback(cluster, plan)
        return None
    return plan


def may_defragment(
    cluster: ClusterState, policy: SchedulingPolicy, backfill: Backfill, attempt: Attempt
) -> bool:
    """Whether relocating others for a workload is allowed, and could be enough."""
    if not policy.defragments or not attempt.has_waited(policy):
        return False
    if not backfill.is_open_to(attempt.waiting.id):
        return False
    needs = attempt.gang.each
    least = min(need.milli for need in needs) * attempt.gang.min
    in_slots = all(need.kind in SLOTS for need in needs)
    # Relocating frees no devices in total.
    return not (in_slots and cluster.pool.inventory.free_milli < least)


def defragment_for(cluster: ClusterState, attempt: Attempt) -> list[Action]:
    """Relocate others for a workload, if it gains more device-seconds than they lose."""
    waiting, now = attempt.waiting, attempt.now
    plan = plan_defrag_for(cluster, attempt.gang, attempt.until, now)
    if plan is None:
        return []
    if plan.cost_device_s > start_gain_device_s(cluster, waiting, attempt.gang, now):
        return []
    targets = {move.id: move.takes for move in plan.relocations}
    made = relocate_workloads(cluster, targets, now, by=waiting.id)
    cluster.pool.reserve(plan.grants)
    return [*made, start_workload(cluster, waiting, plan.grants, now)]
