"""Alerts: rules that say of what people want to be told, and what follows from them. Pure.

A rule is data. Each thing that happens is told once for each rule that it fits.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Final, Protocol
from urllib.parse import urlsplit

from karez.core.grants import Grant
from karez.core.identity import EVERYWHERE
from karez.core.jobs import Job
from karez.core.names import check_name
from karez.core.nodes import NodeId
from karez.core.prices import NANO
from karez.core.receipts import Receipt
from karez.core.recovery import FaultReport
from karez.core.units import MILLI, show_seconds
from karez.core.validation import FORBID
from karez.core.workloads import ENDED, State

_MAIL: Final = re.compile(r"[^@\s,;:<>\"]+@[A-Za-z0-9.-]+")
MAX_ATTEMPTS: Final = 10
"""Deliveries of one alert that are tried: over half an hour with their pauses."""


class AlertEvent(StrEnum):
    """What people can be told of."""

    ENDED = "ended"
    """A job ended, however."""
    FAILED = "failed"
    """A job ended badly."""
    RECOVERED = "recovered"
    """A job was interrupted and went on."""
    WAITING = "waiting"
    """A job has waited longer than the rule says."""
    BUDGET = "budget"
    """In this calendar month (UTC) the project has used more device hours than the rule says, or
    the calls of its models have cost more."""
    NODE = "node"
    """A node was lost or evicted, or a fault was reported of it."""


OF_JOBS: Final = (AlertEvent.ENDED, AlertEvent.FAILED, AlertEvent.RECOVERED, AlertEvent.WAITING)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule:
    """Of what somebody is told, and where."""

    __pydantic_config__: ClassVar[Any] = FORBID

    name: str
    on: tuple[AlertEvent, ...]
    to: str
    """Address of a webhook (http or https), or of a mailbox."""
    project: str = "default"
    """`*`: all projects; nodes are told of in such rules only."""
    jobs: str = "*"
    """Pattern of the names of jobs, such as `train-*`."""
    waiting_s: float | None = None
    device_hours: float | None = None
    spend: float | None = None
    """In the currency of the prices."""
    secret: str = ""
    """Name of a secret of the project that signs what a webhook gets."""

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.on:
            raise ValueError(f"say on what to alert: {', '.join(AlertEvent)}")
        if not (is_webhook(self.to) or _MAIL.fullmatch(self.to)):
            raise ValueError(f"{self.to!r} is neither the URL of a webhook nor a mail address")
        for event, values in (
            (AlertEvent.WAITING, {"waiting": self.waiting_s}),
            (AlertEvent.BUDGET, {"device_hours": self.device_hours, "spend": self.spend}),
        ):
            said = {name: value for name, value in values.items() if value is not None}
            if (event in self.on) != bool(said):
                options = " or ".join(values)
                raise ValueError(f"an alert on {event} says {options}, and no other does")
            for option, value in said.items():
                if not 0 < value < float("inf"):
                    raise ValueError(f"{option} must be positive, got {value:g}")
        if AlertEvent.NODE in self.on and self.project != EVERYWHERE:
            raise ValueError("nodes are of no project: an alert on them is for project '*'")
        if self.secret and (not is_webhook(self.to) or self.project == EVERYWHERE):
            raise ValueError("a secret is of one project, and signs what a webhook gets")

    def fits(self, event: AlertEvent, project: str, name: str) -> bool:
        """Whether the rule is about something that happened to a job."""
        is_of = self.project in (EVERYWHERE, project)
        return event in self.on and is_of and fnmatchcase(name, self.jobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRule:
    """A rule and when it was made: it tells of nothing older."""

    rule: AlertRule
    owner: str
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One thing to tell by one rule."""

    id: str
    """The same for the same thing and rule, so that it is told once."""
    rule: str
    project: str
    """Project of the rule."""
    event: AlertEvent
    subject: str
    """Id of a job, name of a node or of a project."""
    text: str
    at: float
    facts: Mapping[str, str | float | None] = field(default_factory=dict)

    def payload(self) -> dict[str, Any]:
        """What a webhook gets. `text` is what chat systems such as Slack show."""
        return {
            "text": self.text,
            "event": self.event.value,
            "subject": self.subject,
            "rule": self.rule,
            "project": self.project,
            "at": self.at,
            "id": self.id,
            "facts": dict(self.facts),
        }


class DeliveryState(StrEnum):
    """How far the delivery of an alert is."""

    WAITING = "waiting"
    SENT = "sent"
    GIVEN_UP = "given-up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An alert on its way."""

    alert: Alert
    state: DeliveryState = DeliveryState.WAITING
    attempts: int = 0
    next_at: float = 0.0
    problem: str = ""
    """Why the last attempt failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happenings:
    """What has happened since a while ago, as the store has it."""

    ended: Sequence[Job] = ()
    """Jobs, and arrays as one, that have ended."""
    receipts: Sequence[tuple[Job, Receipt]] = ()
    waiting: Sequence[Job] = ()
    used_hours: Mapping[str, float] = field(default_factory=dict)
    """Project -> device hours of this month."""
    spent_nano: Mapping[str, int] = field(default_factory=dict)
    """Project -> what its calls have cost this month, in billionths."""
    month: str = ""
    lost: Mapping[NodeId, float] = field(default_factory=dict)
    """Node that is lost -> when it was last seen."""
    faults: Sequence[FaultReport] = ()


class NotDelivered(Exception):
    """An alert did not reach its address. Not for users: it is tried again."""


class AlertSender(Protocol):
    """Sends alerts to one kind of address."""

    def send(self, alert: Alert, to: str, secret: str) -> None:
        """Send an alert; `secret` signs it, if not empty. Raises NotDelivered."""
        ...


def is_webhook(to: str) -> bool:
    """Whether an address is the URL of a webhook."""
    try:
        parts = urlsplit(to)
        (parts.hostname or "").encode("idna")
        is_whole = bool(parts.hostname) and parts.port != 0 and to.isascii() and to.isprintable()
        return parts.scheme in ("http", "https") and is_whole and " " not in to
    except ValueError:  # a port that is none, or a name that no host can have
        return False


def alerts_of(rules: Iterable[StoredRule], seen: Happenings, now: float) -> list[Alert]:
    """What is to be told by the rules; what was told before is among it, under the same id."""
    return [
        alert
        for stored in rules
        for alert in (
            *_of_ended(stored, seen.ended),
            *_of_recoveries(stored, seen.receipts),
            *_of_waiting(stored, seen.waiting, now),
            *_of_budgets(stored, seen, now),
            *_of_nodes(stored, seen, now),
        )
    ]


def retry_pause_s(attempts: int) -> float:
    """Seconds until the next attempt after so many have failed: 5 s, 10 s, and so on to 10 min."""
    return min(600.0, 5.0 * float(2 ** max(0, attempts - 1)))


def example_alert(rule: AlertRule, now: float) -> Alert:
    """An alert that tells that it is one to try the rule."""
    text = f"karez: this tries the alert {rule.name} of project {rule.project}"
    return _alert(rule, rule.on[0], rule.name, text, now, f"test/{now!r}")


def hours_by_project(
    held: Iterable[tuple[str, tuple[Grant, ...], float, float | None]], since: float, now: float
) -> dict[str, float]:
    """Device hours of each project since an instant, of what it held and when."""
    hours: dict[str, float] = {}
    for project, grants, begun, until in held:
        seconds = max(0.0, (now if until is None else until) - max(begun, since))
        devices = sum(milli for grant in grants for _, milli in grant.devices) / MILLI
        hours[project] = hours.get(project, 0.0) + devices * seconds / 3600
    return hours


def _of_ended(stored: StoredRule, jobs: Sequence[Job]) -> Iterable[Alert]:
    rule = stored.rule
    for job in jobs:
        if job.state not in ENDED or (job.ended_at or 0.0) < stored.created_at:
            continue
        events = [AlertEvent.ENDED]
        if job.state == State.FAILED:
            events.insert(0, AlertEvent.FAILED)
        event = next((e for e in events if rule.fits(e, job.spec.project, job.spec.name)), None)
        if event is not None:
            ran = "" if job.started_at is None else f" after {_ran(job)}"
            why = f": {job.status.reason}" if job.status.reason else ""
            text = f"karez: {_called(job)} has {_ENDS[job.state]}{ran}{why}"
            facts = {"name": job.spec.name, "state": job.state.value, "reason": job.status.reason}
            told = _alert(rule, event, job.id, text, job.ended_at or 0.0, job.id)
            yield replace(told, facts=facts)


_ENDS: Final = {
    State.SUCCEEDED: "succeeded",
    State.FAILED: "failed",
    State.CANCELLED: "been cancelled",
}


def _of_recoveries(stored: StoredRule, receipts: Sequence[tuple[Job, Receipt]]) -> Iterable[Alert]:
    rule, event = stored.rule, AlertEvent.RECOVERED
    for job, receipt in receipts:
        is_new = receipt.resumed_at >= stored.created_at
        if is_new and rule.fits(event, job.spec.project, job.spec.name):
            took = show_seconds(receipt.recovery_s)
            text = (
                f"karez: {_called(job)} goes on after {receipt.cause}: {receipt.rung}, "
                f"{took}, {receipt.steps_lost} steps lost"
            )
            facts = {"name": job.spec.name, "cause": receipt.cause, "rung": receipt.rung}
            told = _alert(rule, event, job.id, text, receipt.resumed_at, receipt.id)
            yield replace(told, facts=facts)


def _of_waiting(stored: StoredRule, jobs: Sequence[Job], now: float) -> Iterable[Alert]:
    rule, event = stored.rule, AlertEvent.WAITING
    for job in jobs:
        waits_s = now - max(job.created_at, stored.created_at)
        limit_s = rule.waiting_s
        if limit_s is None or job.started_at is not None or waits_s < limit_s:
            continue
        if rule.fits(event, job.spec.project, job.spec.name):
            why = f": {job.status.reason}" if job.status.reason else ""
            text = f"karez: {_called(job)} waits for {show_seconds(now - job.created_at)}{why}"
            told = _alert(rule, event, job.id, text, now, job.id)
            yield replace(told, facts={"name": job.spec.name})


def _of_budgets(stored: StoredRule, seen: Happenings, now: float) -> Iterable[Alert]:
    rule = stored.rule
    whose = "all projects" if rule.project == EVERYWHERE else f"project {rule.project}"
    hours = _sum_of(rule, seen.used_hours)
    spent = _sum_of(rule, seen.spent_nano) / NANO
    for limit, used, said, fact, kind in (
        (rule.device_hours, hours, f"{whose} has used {hours:.1f} device hours", "hours", ""),
        (rule.spend, spent, f"{whose} has spent {spent:.6g}", "spent", "spend/"),
    ):
        if limit is None or used < limit:
            continue
        text = f"karez: {said} in {seen.month}, more than {limit:g}"
        about = f"{seen.month}/{kind}{limit!r}"
        told = _alert(rule, AlertEvent.BUDGET, rule.project, text, now, about)
        yield replace(told, facts={fact: used})


def _sum_of(rule: AlertRule, amounts: Mapping[str, float]) -> float:
    """The amount of the rule's project, or of all."""
    everywhere = rule.project == EVERYWHERE
    return sum(amounts.values()) if everywhere else amounts.get(rule.project, 0)


def _of_nodes(stored: StoredRule, seen: Happenings, now: float) -> Iterable[Alert]:
    rule, event = stored.rule, AlertEvent.NODE
    if event not in rule.on:
        return
    for node, seen_at in seen.lost.items():
        if seen_at >= stored.created_at:
            text = f"karez: node {node} is lost"
            yield _alert(rule, event, node, text, now, f"lost/{node}/{seen_at!r}")
    for fault in seen.faults:
        if fault.at >= stored.created_at:
            text = f"karez: node {fault.node}: {fault.detail or fault.code} ({fault.level})"
            about = f"{fault.sender}/{fault.node}/{fault.code}/{fault.at!r}"
            told = _alert(rule, event, fault.node, text, fault.at, about)
            yield replace(told, facts={"code": fault.code})


def _alert(
    rule: AlertRule, event: AlertEvent, subject: str, text: str, at: float, about: str
) -> Alert:
    """An alert; `about` is the same for the same thing."""
    seed = "\n".join((rule.project, rule.name, event, about))
    return Alert(
        id=hashlib.sha256(seed.encode()).hexdigest()[:32],
        rule=rule.name,
        project=rule.project,
        event=event,
        subject=subject,
        text=text,
        at=at,
    )


def _called(job: Job) -> str:
    noun = "array" if job.array is not None and job.array.index is None else "job"
    return f"{noun} {job.spec.name} ({job.id}, project {job.spec.project})"


def _ran(job: Job) -> str:
    return show_seconds((job.ended_at or 0.0) - (job.started_at or 0.0))
