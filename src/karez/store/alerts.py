"""Store of alerts: rules and deliveries."""

from collections.abc import Sequence

from sqlalchemy import delete, select, update
from typing_extensions import override

from karez.core.alerts import Alert, Delivery, DeliveryState, StoredRule
from karez.core.codec import to_text
from karez.core.stores.alerts import AlertStore
from karez.store.database import Database
from karez.store.readable import read_all
from karez.store.schema import alert_rules, alerts

_AT_ONCE = 100
"""Alerts in one statement: each has seven parameters, of which databases take only so many."""


class Alerts(AlertStore):
    """Alerts in SQL, each once by its id."""

    def __init__(self, db: Database) -> None:
        """Keep alerts in an open database."""
        self._db = db

    @override
    def put_rule(self, rule: StoredRule) -> None:
        project, name = rule.rule.project, rule.rule.name
        query = self._db.into(alert_rules).values(project=project, name=name, body=to_text(rule))
        query = query.on_conflict_do_update(
            index_elements=["project", "name"], set_={"body": query.excluded.body}
        )
        with self._db.write() as tx:
            tx.execute(query)

    @override
    def drop_rule(self, project: str, name: str) -> bool:
        waiting = DeliveryState.WAITING.value
        with self._db.write() as tx:
            tx.execute(
                delete(alerts).where(
                    alerts.c.project == project, alerts.c.rule == name, alerts.c.state == waiting
                )
            )
            rule = (alert_rules.c.project == project, alert_rules.c.name == name)
            return tx.execute(delete(alert_rules).where(*rule)).rowcount == 1

    @override
    def rules(self, projects: Sequence[str] | None = None) -> Sequence[StoredRule]:
        query = select(alert_rules.c.name, alert_rules.c.body)
        query = query.order_by(alert_rules.c.project, alert_rules.c.name)
        if projects is not None:
            query = query.where(alert_rules.c.project.in_(projects))
        with self._db.read() as tx:
            return read_all(StoredRule, tx.execute(query))

    @override
    def add(self, new: Sequence[Alert]) -> int:
        return sum(self._add(new[at : at + _AT_ONCE]) for at in range(0, len(new), _AT_ONCE))

    def _add(self, new: Sequence[Alert]) -> int:
        with self._db.read() as tx:
            ids = [alert.id for alert in new]
            known = set(tx.execute(select(alerts.c.id).where(alerts.c.id.in_(ids))).scalars())
        unknown = {alert.id: alert for alert in new if alert.id not in known}
        rows = [
            {
                "id": alert.id,
                "project": alert.project,
                "rule": alert.rule,
                "at": alert.at,
                "state": DeliveryState.WAITING.value,
                "next_at": alert.at,
                "body": to_text(Delivery(alert=alert, next_at=alert.at)),
            }
            for alert in unknown.values()
        ]
        if rows:
            self._db.once(alerts, rows)
        return len(rows)

    @override
    def due(self, now: float, *, limit: int) -> Sequence[Delivery]:
        query = (
            select(alerts.c.id, alerts.c.body)
            .where(alerts.c.state == DeliveryState.WAITING.value, alerts.c.next_at <= now)
            .order_by(alerts.c.next_at)
            .limit(limit)
        )
        with self._db.read() as tx:
            return read_all(Delivery, tx.execute(query))

    @override
    def record(self, delivery: Delivery) -> None:
        change = update(alerts).where(alerts.c.id == delivery.alert.id)
        with self._db.write() as tx:
            tx.execute(
                change.values(
                    state=delivery.state.value, next_at=delivery.next_at, body=to_text(delivery)
                )
            )

    @override
    def deliveries(self, project: str, rule: str, *, limit: int = 100) -> Sequence[Delivery]:
        query = (
            select(alerts.c.id, alerts.c.body)
            .where(alerts.c.project == project, alerts.c.rule == rule)
            .order_by(alerts.c.at.desc())
            .limit(limit)
        )
        with self._db.read() as tx:
            return read_all(Delivery, tx.execute(query))
