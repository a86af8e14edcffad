"""Admission of gangs: what its project or the pool could never hold is refused at submit."""

from collections.abc import Mapping
from dataclasses import dataclass

from karez.core.devices import DeviceKind
from karez.core.errors import QuotaExceeded
from karez.core.gangs import GangSpec
from karez.core.resource_syntax import show_amount
from karez.core.stores.access import AccessStore
from karez.server.services.pool_service import PoolService


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Checks a gang against its project's quota and the empty pool."""

    store: AccessStore
    pool: PoolService

    def check(self, project: str, gang: GangSpec) -> None:
        """Check that a gang could ever start.

        Raises:
            QuotaExceeded: Every alternative of its request exceeds the project's quota.
            BadRequest: No node could hold one of its workers.
        """
        quota = {known.name: known for known in self.store.projects()}[project].quota
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
