"""Reports of faults, and the key that receipts are checked with, over HTTP."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query

from karez.core.api_models import PublicKey
from karez.core.identity import Role
from karez.core.recovery import FaultReport
from karez.server.api.authorization import CloudDep, Who, allow

router = APIRouter(tags=["faults"])
Since = Annotated[float, Query(ge=0.0, le=1e11, description="In UTC epoch seconds.")]


@router.post("/faults", status_code=201, **allow(Role.MONITOR))
def report_fault(report: FaultReport, cloud: CloudDep, who: Who) -> FaultReport:
    """Report a fault of a node or a device, with a key of role monitor.

    A fatal fault, or several in an hour, evict the node: jobs leave it, and nothing new is placed
    there until it has rested and is well again.
    """
    if who.role != Role.MONITOR:
        cloud.permissions.require_everywhere(who)  # a project's admin does not decide on nodes
    return cloud.recovery.report(report)


@router.get("/faults", **allow(Role.ADMIN))
def list_faults(
    cloud: CloudDep, who: Who, since: Since = 0.0, node: str = ""
) -> Sequence[FaultReport]:
    """Faults that were reported or that this cloud detected, oldest first."""
    cloud.permissions.require_everywhere(who)
    return cloud.recovery.incidents(since, node)


@router.get("/receipts/key", **allow(Role.VIEWER))
def receipts_key(cloud: CloudDep) -> PublicKey:
    """The public half of the key that signs this cloud's receipts."""
    return cloud.recovery.key()
