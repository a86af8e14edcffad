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
from karez.core.services import Service, ServiceSpec
from karez.core.stores.workloads import WorkloadStore
from karez.core.workloads import LIVE
from karez.server.services.pool_service import PoolService


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Checks workloads against the quota and limits of their project, and the empty pool."""

    workloads: WorkloadStore
    pool: PoolService

    def check(
        self,
        who: Principal,
        project: Project,
        spec: JobSpec | ServiceSpec,
        *,
        instead_of: Service | None = None,
    ) -> None:
        """Check that a workload of a project could ever start, and keeps to its limits.

        One that is there `instead_of` another service does not count twice.

        Raises:
            LimitExceeded: The project has too many, or may not ask for this priority.
            QuotaExceeded: Every alternative of its request exceeds the project's quota.
            BadRequest: No node could hold one of its workers.
        """
        self._check_limits(who, project, spec, instead_of)
        _check_quota(project, spec.gang)
        self.pool.check(spec.gang)

    def _check_limits(
        self,
        who: Principal,
        project: Project,
        spec: JobSpec | ServiceSpec,
        instead_of: Service | None,
    ) -> None:
        limits = project.limits
        is_service = isinstance(spec, ServiceSpec)
        highest = max(limits.priority, SERVICE_PRIORITY) if is_service else limits.priority
        if spec.priority > highest and not who.is_admin_everywhere:
            limit = f"priorities up to {highest}"
            raise LimitExceeded(project=spec.project, limit=limit, asked=str(spec.priority))
        if isinstance(spec, ServiceSpec):
            services = self.workloads.services(projects=[spec.project], states=tuple(LIVE))
            others = (one for one in services if instead_of is None or one.id != instead_of.id)
            count = sum(one.spec.highest for one in others) + spec.highest
            most, what = limits.replicas, "replicas"
        else:
            new = len(parse_array(spec.array).indices) if spec.array else 1
            count = self.workloads.count_waiting(spec.project) + new
            most, what = limits.queued, "jobs that wait"
        if count > most:
            raise LimitExceeded(project=spec.project, limit=f"{most} {what}", asked=str(count))


def _check_quota(project: Project, gang: GangSpec) -> None:
    totals = [
        {kind: amount * gang.min for kind, amount in request.amounts.items()}
        for request in gang.each
    ]
    exceeded = [_exceeded_kind(total, project.quota) for total in totals]
    if all(exceeded) and exceeded[0] is not None:
        kind = exceeded[0]
        raise QuotaExceeded(
            project=project.name,
            kind=kind,
            asked=show_amount(kind, totals[0][kind]),
            quota=show_amount(kind, project.quota[kind]),
        )


def _exceeded_kind(
    total: Mapping[DeviceKind, int], quota: Mapping[DeviceKind, int]
) -> DeviceKind | None:
    return next((kind for kind, amount in total.items() if amount > quota.get(kind, amount)), None)
