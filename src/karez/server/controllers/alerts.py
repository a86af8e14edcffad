"""Finds out of what people are to be told, and tells them, each thing once."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from karez.core.jobs import Job
from karez.core.ports import Clock
from karez.core.stores.store import Store

log = structlog.get_logger()
RECOVERY_S = 86_400.0
"""Seconds that recoveries are looked back for: they are recorded when they are over."""
OVERLAP_S = 60.0
"""Seconds that a look at what ended goes back behind the one before."""
DOWN_S = 7 * 86_400.0
"""Seconds that the first look goes back: what happened while no control ran is told."""
MOST = 1000
"""Most jobs that are read at once."""
AT_ONCE = 40
"""Most alerts that are sent in one pass; as many threads send as AT_A_TIME."""
AT_A_TIME = 8
BUDGET_S = 60.0
"""Seconds between two sums of what projects have used."""


@dataclass(slots=True, kw_only=True)
class Alerter:
    """Looks at what happened since the last pass, and sends what is due."""

    store: Store
    clock: Clock
    webhooks: AlertSender
    mail: AlertSender
    secret_of: Callable[[str, str], str]
    """Opens a secret of a project; empty if there is none."""
    _ended_until: float = field(default=0.0)
    """Up to when endings were read."""
    _used: tuple[float, str, Mapping[str, float]] = field(default=(0.0, "", {}))
    """When usage was summed, the month, and the hours of each project."""

    def tick(self) -> None:
        """Look once, and send what is due."""
        now = self.clock.now()
        rules = self.store.alerts.rules()
        if rules:
            found = alerts_of(rules, self._happenings(rules, now), now)
            count = self.store.alerts.add(found)
            if count:
                log.info("alerts.found", count=count)
        due = self.store.alerts.due(now, limit=AT_ONCE)
        if due:
            with ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="alert") as senders:
                for outcome in senders.map(lambda one: self._attempt(one, rules), due):
                    self.store.alerts.record(outcome)

    def send(self, delivery: Delivery, rule: AlertRule) -> None:
        """Send one alert now. Raises NotDelivered."""
        secret = self.secret_of(rule.project, rule.secret) if rule.secret else ""
        if rule.secret and not secret:
            raise NotDelivered(f"project {rule.project} has no secret {rule.secret}")
        sender = self.webhooks if is_webhook(rule.to) else self.mail
        sender.send(delivery.alert, rule.to, secret)

    def _attempt(self, delivery: Delivery, rules: Sequence[StoredRule]) -> Delivery:
        """The delivery after one more attempt; nothing that goes wrong in it harms others."""
        attempts = delivery.attempts + 1
        rule = next((r.rule for r in rules if _is_of(delivery, r.rule)), None)
        try:
            if rule is None:
                raise NotDelivered("its rule was removed")
            self.send(delivery, rule)
        except Exception as error:
            if not isinstance(error, NotDelivered):
                log.exception("alert.failed", rule=delivery.alert.rule)
            is_over = attempts >= MAX_ATTEMPTS or rule is None
            problem = str(error) or type(error).__name__
            log.warning("alert.not-sent", rule=delivery.alert.rule, why=problem, attempts=attempts)
            return replace(
                delivery,
                state=DeliveryState.GIVEN_UP if is_over else DeliveryState.WAITING,
                attempts=attempts,
                next_at=self.clock.now() + retry_pause_s(attempts),
                problem=problem,
            )
        return replace(delivery, state=DeliveryState.SENT, attempts=attempts, problem="")

    def _happenings(self, rules: Sequence[StoredRule], now: float) -> Happenings:
        """What happened; only what some rule asks for is read."""
        asked = {event for stored in rules for event in stored.rule.on}
        oldest = min(stored.created_at for stored in rules)
        workloads, history = self.store.workloads, self.store.history
        seen = Happenings()
        if asked & {AlertEvent.ENDED, AlertEvent.FAILED}:
            seen = replace(seen, ended=self._ended(oldest, now))
        if AlertEvent.RECOVERED in asked:
            since = max(oldest, now - RECOVERY_S) - RECOVERY_S
            found = [(workloads.job(r.job), r) for r in history.receipts_since(since)]
            seen = replace(seen, receipts=[(job, r) for job, r in found if job is not None])
        if AlertEvent.WAITING in asked:
            waiting = workloads.longest_waiting(limit=MOST)
            seen = replace(seen, waiting=waiting)
        if AlertEvent.BUDGET in asked:
            _, month, hours = self._usage(now)
            spent = self.store.usage.spend(now)
            seen = replace(seen, used_hours=hours, spent_nano=spent, month=month)
        if AlertEvent.NODE in asked:
            faults = history.incidents(since=max(oldest, now - DOWN_S))
            seen = replace(seen, lost=self.store.pool.lost(), faults=faults)
        return seen

    def _ended(self, oldest: float, now: float) -> Sequence[Job]:
        """What ended since the last look, page by page."""
        since = max(oldest, (self._ended_until or now - DOWN_S) - OVERLAP_S)
        found: list[Job] = []
        while True:
            page, until = self.store.workloads.ended_jobs(since=since, limit=MOST)
            found += page
            if until is None:
                self._ended_until = now
                return list({job.id: job for job in found}.values())
            since = until

    def _usage(self, now: float) -> tuple[float, str, Mapping[str, float]]:
        """What projects have used this month, summed once a minute."""
        if now - self._used[0] >= BUDGET_S or not self._used[1]:
            month = datetime.datetime.fromtimestamp(now, datetime.UTC).replace(
                day=1, hour=0, minute=0, second=0, microsecond=0
            )
            begun = month.timestamp()
            hours = hours_by_project(self.store.usage.held(begun), begun, now)
            self._used = (now, f"{month:%Y-%m}", hours)
        return self._used


def _is_of(delivery: Delivery, rule: AlertRule) -> bool:
    return (delivery.alert.project, delivery.alert.rule) == (rule.project, rule.name)
