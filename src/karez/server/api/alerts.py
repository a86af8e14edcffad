"""Alerts over HTTP."""

from collections.abc import Sequence

from fastapi import APIRouter

from karez.core.alerts import AlertRule, Delivery, StoredRule
from karez.core.identity import Role
from karez.server.api.authorization import CloudDep, Who, allow

router = APIRouter(prefix="/alerts", tags=["alerts"])


@router.get("", **allow(Role.ADMIN))
def list_alerts(cloud: CloudDep, who: Who) -> Sequence[StoredRule]:
    """The rules of the projects that you administer: the URL of a webhook is often a secret."""
    return cloud.alerts.list(who)


@router.put("/{project}/{name}", **allow(Role.ADMIN))
def put_alert(project: str, name: str, rule: AlertRule, cloud: CloudDep, who: Who) -> StoredRule:
    """Store a rule, in place of one of that name. It tells of what happens from now on."""
    if (project, name) != (rule.project, rule.name):
        raise ValueError(f"the path says {project}/{name}, the body {rule.project}/{rule.name}")
    return cloud.alerts.put(who, rule)


@router.delete("/{project}/{name}", status_code=204, **allow(Role.ADMIN))
def remove_alert(project: str, name: str, cloud: CloudDep, who: Who) -> None:
    """Remove a rule."""
    cloud.alerts.drop(who, project, name)


@router.post("/{project}/{name}/test", **allow(Role.ADMIN))
def try_alert(project: str, name: str, cloud: CloudDep, who: Who) -> Delivery:
    """Send one alert by a rule at once, and say whether it arrived."""
    return cloud.alerts.try_out(who, project, name)


@router.get("/{project}/{name}/sent", **allow(Role.ADMIN))
def sent_alerts(project: str, name: str, cloud: CloudDep, who: Who) -> Sequence[Delivery]:
    """The alerts of a rule, newest first, those that could not be sent among them."""
    return cloud.alerts.sent(who, project, name)
