"""A cache of workloads for the scheduler: specs never change, so each is read once."""

import math
from collections.abc import Mapping, Sequence

import structlog

from karez.core.devices import DeviceKind
from karez.core.grants import Grant
from karez.core.jobs import Job
from karez.core.nodes import Node
from karez.core.ports import Clock
from karez.core.services import Replica, Service
from karez.core.stores.store import Store
from karez.core.workloads import Allocation, State, WorkloadId
from karez.scheduling.cluster_state import capacity_of
from karez.scheduling.placement.pool_builder import free_pool
from karez.scheduling.queue.fair_share import HALF_LIFE_S, FairShare
from karez.scheduling.queue.order import PendingWorkload
from karez.scheduling.snapshot import AllocatedWorkload
from karez.server.controllers.pending_workloads import to_allocated, to_pending
from karez.server.controllers.store_view import StoreView

log = structlog.get_logger()
MAX_WAITING = 1_000_000
BULK_READ_FROM = 20
"""Unread workloads beyond which one query for all is cheaper than one query for each."""
USAGE_HISTORY_S = 10 * HALF_LIFE_S
"""Seconds of past usage that are read: after ten half-lives less than a thousandth counts."""


class WorkloadCache:
    """Waiting and running workloads of the store, in the engine's terms."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """Start empty."""
        self._store, self._clock = store, clock
        self._waiting: dict[WorkloadId, PendingWorkload] = {}
        self._running: dict[tuple[WorkloadId, int], AllocatedWorkload] = {}

    def view(self) -> StoreView:
        """Read the queue and the allocations."""
        queued = self._store.workloads.queued()
        return StoreView(
            queued=queued,
            waiting=self._read_waiting(queued),
            running=self._read_running(self._store.workloads.allocations()),
        )

    def usage_s(self, now: float, nodes: Sequence[Node]) -> dict[str, float]:
        """Decayed usage of the pool by project, from what was held and when."""
        capacity = capacity_of(free_pool(nodes, ()))
        shares = FairShare(capacity=capacity, at=now - USAGE_HISTORY_S)
        edges: list[tuple[float, int, str, tuple[Grant, ...]]] = []
        for project, grants, since, until in self._store.usage.held(now - USAGE_HISTORY_S):
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

    def _read_waiting(
        self, queued: Sequence[tuple[WorkloadId, str, str]]
    ) -> Mapping[WorkloadId, PendingWorkload]:
        """Queued workloads in order of their submission."""
        unread = [row for row in queued if row[0] not in self._waiting]
        if len(unread) > BULK_READ_FROM:
            self._read_all()
        waiting: dict[WorkloadId, PendingWorkload] = {}
        for ident, _, _ in queued:
            workload = self._waiting.get(ident) or self._read(ident)
            if workload is not None:
                waiting[ident] = workload
        self._waiting = waiting
        return waiting

    def _read_running(
        self, allocations: Mapping[WorkloadId, Allocation]
    ) -> Mapping[WorkloadId, AllocatedWorkload]:
        """Workloads that hold devices; each allocation is read once."""
        running: dict[tuple[WorkloadId, int], AllocatedWorkload] = {}
        for ident, allocation in allocations.items():
            key = (ident, allocation.epoch)
            workload = self._running.get(key) or self._read_allocated(ident, allocation)
            if workload is not None:
                running[key] = workload
        self._running = running
        return {ident: workload for (ident, _), workload in running.items()}

    def _read_all(self) -> None:
        """Read the whole queue in two queries: after a start, or when many workloads are new."""
        states = (State.QUEUED,)
        items: list[Job | Replica] = [
            *self._store.workloads.jobs(projects=None, states=states, limit=MAX_WAITING),
            *self._store.replicas.live(ended_since=math.inf),
        ]
        self._waiting.update({item.id: to_pending(item) for item in items if not item.unreadable})

    def _read(self, ident: WorkloadId) -> PendingWorkload | None:
        item = self._store.workloads.by_id(ident)
        if item is None or isinstance(item, Service):
            return None
        if item.unreadable:
            self._store.workloads.fail(item.id, item.unreadable, at=self._clock.now())
            log.error("workload.unreadable", workload=item.id, why=item.unreadable)
            return None
        return to_pending(item)

    def _read_allocated(
        self, ident: WorkloadId, allocation: Allocation
    ) -> AllocatedWorkload | None:
        item = self._store.workloads.by_id(ident)
        if item is None or isinstance(item, Service):
            return None  # no service holds devices itself
        return to_allocated(item, allocation)
