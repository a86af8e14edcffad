"""API requests as values: alerts."""

from urllib.parse import quote

from karez.client.calls import Call
from karez.core.alerts import AlertRule, Delivery, StoredRule
from karez.core.codec import to_json


def alerts() -> Call[list[StoredRule]]:
    """List the rules of alerts."""
    return Call(answer=list[StoredRule], method="GET", path="/alerts")


def put_alert(rule: AlertRule) -> Call[StoredRule]:
    """Store a rule, in place of one of that name."""
    path = _path(rule.project, rule.name)
    return Call(answer=StoredRule, method="PUT", path=path, body=to_json(rule), once="same")


def remove_alert(name: str, project: str = "default") -> Call[None]:
    """Remove a rule."""
    return Call(answer=None, method="DELETE", path=_path(project, name))


def try_alert(name: str, project: str = "default") -> Call[Delivery]:
    """Send one alert by a rule at once."""
    return Call(answer=Delivery, method="POST", path=f"{_path(project, name)}/test")


def sent_alerts(name: str, project: str = "default") -> Call[list[Delivery]]:
    """List the alerts of a rule, newest first."""
    return Call(answer=list[Delivery], method="GET", path=f"{_path(project, name)}/sent")


def _path(project: str, name: str) -> str:
    return f"/alerts/{quote(project, safe='')}/{quote(name, safe='')}"
