"""Reasons for which the workloads in the queue wait, as texts for people."""

from collections.abc import Mapping

from karez.core.workloads import WorkloadId
from karez.scheduling.cluster_state import ClusterState
from karez.scheduling.placement.fit_report import explain_unplaced
from karez.scheduling.queue.pending_queue import EquivalenceClass, PendingQueue
from karez.scheduling.queue.quota import within_quota


def wait_reasons(
    queue: PendingQueue,
    cluster: ClusterState,
    blocked: Mapping[EquivalenceClass, str],
    holder: WorkloadId | None,
    now: float,
) -> dict[WorkloadId, str]:
    """Explain by class why each workload in the queue waits; `holder` has the reservation."""
    behind = "it is its turn after others of its kind"
    if holder is not None:
        behind = (
            f"{holder} is first in line and has waited long; set max_duration to pass it safely"
        )
    reasons: dict[WorkloadId, str] = {}
    for key, entries in queue.classes():
        gang, barred = within_quota(entries[0][1], cluster.projects, cluster.used)
        why = blocked.get(key, barred or behind)
        if not why:
            until = None if key[3] is None else now + key[3]
            why = explain_unplaced(gang, cluster.pool, until)
        reasons.update((waiting.id, why) for _, waiting in entries)
    return reasons
