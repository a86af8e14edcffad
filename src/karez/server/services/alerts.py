"""Rules of alerts: put, list, remove, try; and what was sent by them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from karez.core.alerts import (
    AlertRule,
    Delivery,
    DeliveryState,
    NotDelivered,
    StoredRule,
    example_alert,
)
from karez.core.errors import BadRequest, NotFound
from karez.core.identity import EVERYWHERE, Principal, Role
from karez.core.ports import Clock
from karez.core.stores.alerts import AlertStore
from karez.server.services.permissions import Permissions, visible_projects


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertService:
    """Rules of the projects that a key administers."""

    store: AlertStore
    permissions: Permissions
    clock: Clock
    send: Callable[[Delivery, AlertRule], None]
    """Sends one alert at once. Raises NotDelivered."""

    def put(self, who: Principal, rule: AlertRule) -> StoredRule:
        """Store a rule. Raises NotAllowed, NotFound."""
        project = self._project(who, rule.project)
        rule = replace(rule, project=project)
        stored = StoredRule(rule=rule, owner=who.name, created_at=self.clock.now())
        self.store.put_rule(stored)
        return stored

    def list(self, who: Principal) -> Sequence[StoredRule]:
        """The rules of the projects that a key sees."""
        return self.store.rules(visible_projects(who))

    def drop(self, who: Principal, project: str, name: str) -> None:
        """Remove a rule. Raises NotAllowed, NotFound."""
        project = self._project(who, project)
        if not self.store.drop_rule(project, name):
            raise NotFound(noun="alert", name=name)

    def try_out(self, who: Principal, project: str, name: str) -> Delivery:
        """Send an alert by a rule at once. Raises NotAllowed, NotFound, BadRequest."""
        project = self._project(who, project)
        rule = self._rule(project, name)
        delivery = Delivery(alert=example_alert(rule, self.clock.now()), attempts=1)
        try:
            self.send(delivery, rule)
        except NotDelivered as error:
            fix = "Correct the rule with `karez alerts add`: one of the same name is replaced."
            raise BadRequest(
                problem=f"the alert {name} did not arrive: {error}", fix=fix
            ) from error
        sent = Delivery(alert=delivery.alert, attempts=1, state=DeliveryState.SENT)
        self.store.add([delivery.alert])
        self.store.record(sent)
        return sent

    def sent(self, who: Principal, project: str, name: str) -> Sequence[Delivery]:
        """The alerts of a rule, newest first. Raises NotAllowed, NotFound."""
        project = self._project(who, project)
        self._rule(project, name)
        return self.store.deliveries(project, name)

    def _project(self, who: Principal, project: str) -> str:
        """The project whose administrator a key must be of; `*` needs one of all."""
        if project == EVERYWHERE:
            self.permissions.require_everywhere(who)
            return project
        project = self.permissions.project_of(who, project)
        self.permissions.require(who, project, Role.ADMIN)
        return project

    def _rule(self, project: str, name: str) -> AlertRule:
        for stored in self.store.rules([project]):
            if stored.rule.name == name:
                return stored.rule
        raise NotFound(noun="alert", name=name)
