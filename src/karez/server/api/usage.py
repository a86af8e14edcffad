"""Usage and the audit log over HTTP."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query

from karez.core.identity import Role
from karez.core.usage import AuditRow, UsageRow
from karez.server.api.authorization import CloudDep, Who, allow
from karez.server.services.permissions import visible_projects

router = APIRouter(tags=["usage"])


@router.get("/usage", **allow(Role.VIEWER))
def show_usage(cloud: CloudDep, who: Who) -> Sequence[UsageRow]:
    """Tokens per service and device-seconds per workload."""
    projects = visible_projects(who)
    return cloud.store.usage.summary(projects=projects, now=cloud.clock.now())


@router.get("/audit", **allow(Role.ADMIN))
def show_audit(
    cloud: CloudDep, who: Who, limit: Annotated[int, Query(ge=1, le=10_000)] = 100
) -> Sequence[AuditRow]:
    """The audit log of changes, newest first."""
    cloud.permissions.require_everywhere(who)
    return cloud.store.usage.audit(limit=limit)
