"""What the scheduler knows of workloads: specs never change, so each is read once."""

from collections.abc import Mapping, Sequence

from karez.core.resources import DeviceKind, Grant, Node
from karez.core.stores import Store
from karez.core.workloads import (
    Allocation,
    GangSpec,
    Job,
    Service,
    State,
    WorkloadId,
    WorkloadKind,
)
from karez.scheduling.cluster_state import capacity_of
from karez.scheduling.placement.pool_builder import free_pool
from karez.scheduling.queue.fair_share import HALF_LIFE_S, FairShare
from karez.scheduling.queue.order import PendingWorkload
from karez.scheduling.snapshot import AllocatedWorkload

MAX_WAITING = 1_000_000
MANY = 20
"""Unknown specs beyond which one query for all is cheaper than one for each."""
REMEMBERED = 10 * HALF_LIFE_S
"""After ten half-lives less than a thousandth counts."""


class WorkloadCache:
    """Waiting and running workloads as the desk knows them."""

    def __init__(self, store: Store) -> None:
        """Nothing is known yet."""
        self._store = store
        self._waiting: dict[WorkloadId, PendingWorkload] = {}
        self._running: dict[tuple[WorkloadId, int], AllocatedWorkload] = {}

    def waiting(
        self, queued: Sequence[tuple[WorkloadId, str, str]]
    ) -> Mapping[WorkloadId, PendingWorkload]:
        """Those in the queue, in order of their submission."""
        unknown = [pair for pair in queued if pair[0] not in self._waiting]
        if len(unknown) > MANY:
            self._read_all()
        known: dict[WorkloadId, PendingWorkload] = {}
        for ident, kind, _ in queued:
            found = self._waiting.get(ident) or self._read(ident, kind)
            if found is not None:
                known[ident] = found
        self._waiting = known
        return known

    def running(
        self, allocations: Mapping[WorkloadId, Allocation]
    ) -> Mapping[WorkloadId, AllocatedWorkload]:
        """What holds devices; each allocation is looked up once."""
        known: dict[tuple[WorkloadId, int], AllocatedWorkload] = {}
        for ident, allocation in allocations.items():
            key = (ident, allocation.epoch)
            found = self._running.get(key)
            if found is None:
                item = self._item(ident)
                found = None if item is None else _running(item, allocation)
            if found is not None:
                known[key] = found
        self._running = known
        return {ident: found for (ident, _), found in known.items()}

    def usage_s(self, now: float, nodes: Sequence[Node]) -> dict[str, float]:
        """What each project had of the pool so far, from what was held and when."""
        capacity = capacity_of(free_pool(nodes, ()))
        shares = FairShare(capacity=capacity, at=now - REMEMBERED)
        edges: list[tuple[float, int, str, tuple[Grant, ...]]] = []
        for project, grants, since, until in self._store.usage.held(now - REMEMBERED):
            edges.append((since, 1, project, grants))
            edges.append((now if until is None else until, -1, project, grants))
        used: dict[tuple[str, DeviceKind], int] = {}
        for at, sign, project, grants in sorted(edges, key=lambda edge: (edge[0], -edge[1])):
            shares.advance(min(at, now), used)
            for grant in grants:
                for kind, amount in grant.amounts.items():
                    used[project, kind] = used.get((project, kind), 0) + sign * amount
        shares.advance(now, used)
        return shares.usage_s

    def _read_all(self) -> None:
        """Everything that waits in two queries: after a start, or when many came at once."""
        waits = (State.QUEUED,)
        items: list[Job | Service] = [
            *self._store.workloads.jobs(projects=None, states=waits, limit=MAX_WAITING),
            *self._store.workloads.services(projects=None, states=waits),
        ]
        self._waiting.update({item.id: as_waiting(item) for item in items})

    def _read(self, ident: WorkloadId, kind: str) -> PendingWorkload | None:
        found: Job | Service | None = (
            self._store.workloads.job(ident)
            if kind == "job"
            else self._store.workloads.service(ident)
        )
        return None if found is None else as_waiting(found)

    def _item(self, ident: WorkloadId) -> Job | Service | None:
        return self._store.workloads.job(ident) or self._store.workloads.service(ident)


def _running(item: Job | Service, allocation: Allocation) -> AllocatedWorkload:
    waiting, ends_by = as_waiting(item), None
    if isinstance(item, Job):
        runs_s = item.spec.expected_duration_s or item.spec.max_duration_s
        began_at = item.started_at or allocation.since
        ends_by = began_at + runs_s if runs_s else None
    return AllocatedWorkload(
        allocation=allocation, project=item.spec.project, ends_by=ends_by, waiting=waiting
    )


def as_waiting(item: Job | Service) -> PendingWorkload:
    """A workload as it stands in line."""
    if not isinstance(item, Job):
        replicas = item.spec.replicas
        return PendingWorkload(
            id=item.id,
            project=item.spec.project,
            gang=GangSpec(min=replicas, want=replicas, each=item.spec.each),
            priority=item.spec.priority,
            since=item.created_at,
            done_s=item.status.ran_s,
            preemptible=False,
        )
    spec = item.spec
    return PendingWorkload(
        id=item.id,
        project=spec.project,
        gang=spec.gang,
        priority=spec.priority,
        since=item.created_at,
        max_duration_s=spec.max_duration_s,
        expected_s=spec.expected_duration_s,
        done_s=item.status.ran_s if spec.kind == WorkloadKind.TRAIN else 0.0,
        preemptible=spec.preemptible,
        resumes=spec.kind == WorkloadKind.TRAIN,
        deadline_at=None if spec.deadline_s is None else item.created_at + spec.deadline_s,
    )
