"""Admission of gangs: what its project or the pool could never hold is refused at submit."""

from collections.abc import Mapping
from dataclasses import dataclass

from karez.core.arrays import parse_array
from karez.core.devices import DeviceKind
from karez.core.errors import LimitExceeded, QuotaExceeded
from karez.core.gangs import GangSpec
from karez.core.identity import Principal, Project
from karez.core.jobs import JobSpec
from karez.core.priorities import SERVICE_PRIORITY
from karez.core.resource_syntax import show_amount
from karez.core.services import ServiceSpec
from karez.core.stores.access import AccessStore
from karez.core.stores.workloads import WorkloadStore
from karez.core.workloads import ENDED, State
from karez.server.services.pool_service import PoolService

LIVE = frozenset(State) - ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Checks workloads against the quota and limits of their project, and the empty pool."""

    store: AccessStore
    workloads: WorkloadStore
    pool: PoolService

    def check_limits(self, who: Principal, spec: JobSpec | ServiceSpec) -> None:
        """Check that a workload keeps to the limits of its project. Raises LimitExceeded."""
        limits = self._project(spec.project).limits
        is_service = isinstance(spec, ServiceSpec)
        highest = max(limits.priority, SERVICE_PRIORITY) if is_service else limits.priority
        if spec.priority > highest and not who.is_admin_everywhere:
            limit = f"priorities up to {highest}"
            raise LimitExceeded(project=spec.project, limit=limit, asked=str(spec.priority))
        if isinstance(spec, ServiceSpec):
            services = self.workloads.services(projects=[spec.project], states=tuple(LIVE))
            count = sum(service.spec.replicas for service in services) + spec.replicas
            most, what = limits.replicas, "replicas"
        else:
            new = len(parse_array(spec.array).indices) if spec.array else 1
            count = self.workloads.count_waiting(spec.project) + new
            most, what = limits.queued, "jobs that wait"
        if count > most:
            raise LimitExceeded(project=spec.project, limit=f"{most} {what}", asked=str(count))

    def _project(self, name: str) -> Project:
        return {known.name: known for known in self.store.projects()}[name]

    def check(self, project: str, gang: GangSpec) -> None:
        """Check that a gang could ever start.

        Raises:
            QuotaExceeded: Every alternative of its request exceeds the project's quota.
            BadRequest: No node could hold one of its workers.
        """
        quota = self._project(project).quota
        totals = [
            {kind: amount * gang.min for kind, amount in request.amounts.items()}
            for request in gang.each
        ]
        exceeded = [_exceeded_kind(total, quota) for total in totals]
        if all(exceeded) and exceeded[0] is not None:
            kind = exceeded[0]
            raise QuotaExceeded(
                project=project,
                kind=kind,
                asked=show_amount(kind, totals[0][kind]),
                quota=show_amount(kind, quota[kind]),
            )
        self.pool.check(gang)


def _exceeded_kind(
    total: Mapping[DeviceKind, int], quota: Mapping[DeviceKind, int]
) -> DeviceKind | None:
    return next((kind for kind, amount in total.items() if amount > quota.get(kind, amount)), None)
