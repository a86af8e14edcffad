"""The table by which the gateway routes: keys and ready replicas."""

import math

from karez.core.identity import Role
from karez.core.routing import GatewayKey, Route, Table
from karez.core.services import READY
from karez.core.stores.store import Store
from karez.core.workloads import LIVE, WorkloadId

CALLER_ROLES = (Role.VIEWER, Role.MEMBER, Role.ADMIN)
"""Roles whose keys may call models."""


def build_gateway_table(store: Store, now: float) -> Table:
    """Build the gateway's table from the store; `now` in UTC epoch seconds."""
    keys = tuple(
        GatewayKey(
            id=key.id, project=key.project, role=key.role, digest=key.digest, calls=key.calls
        )
        for key in store.access.keys()
        if key.is_valid(now) and key.role in CALLER_ROLES
    )
    urls: dict[WorkloadId, list[str]] = {}
    for replica in store.replicas.live(ended_since=math.inf):
        ready = [view.url for view in replica.status.ranks if view.state == READY]
        urls.setdefault(replica.service, []).extend(ready)
    routes = tuple(
        Route(
            service=service.spec.name,
            project=service.spec.project,
            urls=tuple(urls.get(service.id, ())),
            since=service.created_at,
            parallel=service.spec.parallel,
        )
        for service in store.workloads.services(projects=None, states=tuple(LIVE))
    )
    return Table(keys=keys, routes=routes)
