"""Finds out of what people are to be told, and tells them, each thing once."""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from karez.core.alerts import (
    MAX_ATTEMPTS,
    AlertEvent,
    AlertRule,
    AlertSender,
    Delivery,
    DeliveryState,
    Happenings,
    NotDelivered,
    StoredRule,
    alerts_of,
    hours_by_project,
    is_webhook,
    retry_pause_s,
)
from karez.core.ports import Clock
from karez.core.stores.store import Store
from karez.core.workloads import WAITING

log = structlog.get_logger()
BACK_S = 3600.0
"""Seconds that each pass looks back: a recovery is recorded when it is over."""
DOWN_S = 7 * 86_400.0
"""Seconds that the first pass looks back: what happened while no control ran is told."""
MOST = 1000
"""Most jobs that are looked at in one pass."""
AT_ONCE = 20
"""Most alerts that are sent in one pass."""


@dataclass(slots=True, kw_only=True)
class Alerter:
    """Looks at what happened since the last pass, and sends what is due."""

    store: Store
    clock: Clock
    webhooks: AlertSender
    mail: AlertSender
    secret_of: Callable[[str, str], str]
    """Opens a secret of a project; empty if there is none."""
    _seen_until: float = field(default=0.0)

    def tick(self) -> None:
        """Look once, and send what is due."""
        now = self.clock.now()
        rules = self.store.alerts.rules()
        if rules:
            seen = self._happenings(rules, now)
            count = self.store.alerts.add(alerts_of(rules, seen, now))
            if count:
                log.info("alerts.found", count=count)
        self._seen_until = now
        for delivery in self.store.alerts.due(now, limit=AT_ONCE):
            rule = next((r.rule for r in rules if _is_of(delivery, r.rule)), None)
            if rule is not None:
                self.store.alerts.record(self._attempt(delivery, rule))

    def send(self, delivery: Delivery, rule: AlertRule) -> None:
        """Send one alert now. Raises NotDelivered."""
        secret = self.secret_of(rule.project, rule.secret) if rule.secret else ""
        if rule.secret and not secret:
            raise NotDelivered(f"project {rule.project} has no secret {rule.secret}")
        sender = self.webhooks if is_webhook(rule.to) else self.mail
        sender.send(delivery.alert, rule.to, secret)

    def _attempt(self, delivery: Delivery, rule: AlertRule) -> Delivery:
        attempts = delivery.attempts + 1
        try:
            self.send(delivery, rule)
        except NotDelivered as error:
            is_over = attempts >= MAX_ATTEMPTS
            log.warning("alert.not-sent", rule=rule.name, why=str(error), attempts=attempts)
            return replace(
                delivery,
                state=DeliveryState.GIVEN_UP if is_over else DeliveryState.WAITING,
                attempts=attempts,
                next_at=self.clock.now() + retry_pause_s(attempts),
                problem=str(error),
            )
        return replace(delivery, state=DeliveryState.SENT, attempts=attempts, problem="")

    def _happenings(self, rules: Sequence[StoredRule], now: float) -> Happenings:
        """What happened; only what some rule asks for is read."""
        asked = {event for stored in rules for event in stored.rule.on}
        oldest = min(stored.created_at for stored in rules)
        since = max(oldest, (self._seen_until or now - DOWN_S) - BACK_S)
        workloads, history = self.store.workloads, self.store.history
        seen = Happenings()
        if asked & {AlertEvent.ENDED, AlertEvent.FAILED}:
            seen = replace(seen, ended=workloads.ended_jobs(since=since, limit=MOST))
        if AlertEvent.RECOVERED in asked:
            found = [(workloads.job(r.job), r) for r in history.receipts_since(since)]
            pairs = [(job, receipt) for job, receipt in found if job is not None]
            seen = replace(seen, receipts=pairs)
        if AlertEvent.WAITING in asked:
            jobs = workloads.jobs(
                projects=None, states=tuple(WAITING), whole_arrays=True, limit=MOST
            )
            seen = replace(seen, waiting=jobs)
        if AlertEvent.BUDGET in asked:
            month = datetime.datetime.fromtimestamp(now, datetime.UTC).replace(
                day=1, hour=0, minute=0, second=0, microsecond=0
            )
            begun = month.timestamp()
            held = self.store.usage.held(begun)
            hours = hours_by_project(held, begun, now)
            seen = replace(seen, used_hours=hours, month=f"{month:%Y-%m}")
        if AlertEvent.NODE in asked:
            faults = history.incidents(since=since)
            seen = replace(seen, nodes=self.store.pool.nodes(), faults=faults)
        return seen


def _is_of(delivery: Delivery, rule: AlertRule) -> bool:
    return (delivery.alert.project, delivery.alert.rule) == (rule.project, rule.name)
