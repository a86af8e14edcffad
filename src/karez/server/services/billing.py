"""Prices of models and devices, and the ledger of what was used."""

from collections.abc import Sequence
from dataclasses import dataclass

from karez.core.device_prices import DevicePrice
from karez.core.errors import BadRequest, NotFound
from karez.core.identity import Principal, Role
from karez.core.ledger import LedgerLine
from karez.core.ports import Clock
from karez.core.prices import Price
from karez.core.settlement import Settlement, seen_by, settle
from karez.core.stores.usage import UsageStore
from karez.core.usage import MinuteUsage
from karez.server.services.permissions import Permissions, visible_projects

MOST_LINES, MOST_MINUTES = 1000, 100_000
MOST_HOLDS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BillingService:
    """Prices for all projects, and the usage of those that a key may see."""

    store: UsageStore
    permissions: Permissions
    clock: Clock

    def put_price(self, who: Principal, price: Price) -> Price:
        """Store a price; it holds for calls that are recorded from now on. Raises NotAllowed."""
        self.permissions.require_everywhere(who)
        self.store.put_price(price)
        return price

    def drop_price(self, who: Principal, model: str) -> None:
        """Remove a price. Raises NotAllowed, NotFound."""
        self.permissions.require_everywhere(who)
        if not self.store.drop_price(model):
            raise NotFound(noun="price", name=model)

    def put_device_price(self, who: Principal, price: DevicePrice) -> DevicePrice:
        """Store a price; it holds for devices that are held from now on. Raises NotAllowed."""
        self.permissions.require_everywhere(who)
        self.store.put_device_price(price, now=self.clock.now())
        return price

    def drop_device_price(self, who: Principal, device: str) -> None:
        """Remove a price; what was held until now is billed. Raises NotAllowed, NotFound."""
        self.permissions.require_everywhere(who)
        if not self.store.drop_device_price(device, now=self.clock.now()):
            raise NotFound(noun="device price", name=device)

    def ledger(self, who: Principal, project: str, *, after: int) -> Sequence[LedgerLine]:
        """Lines of a project's ledger, MOST_LINES at most. Raises NotAllowed, NotFound."""
        project = self.permissions.project_of(who, project)
        self.permissions.require(who, project, Role.VIEWER)
        return self.store.ledger(project, after=after, limit=MOST_LINES)

    def settlement(self, who: Principal, last_s: float, until: float | None) -> Settlement:
        """What training and services gave each other, in the seconds until an instant or now.

        Raises BadRequest if that is too much at once.
        """
        now = self.clock.now()
        end = now if until is None else min(now, until)
        since = max(0.0, end - last_s)
        holds = self.store.holds(since=since, until=end, limit=MOST_HOLDS + 1)
        if len(holds) > MOST_HOLDS:
            raise _too_much(f"{MOST_HOLDS:,} times that devices were held")
        return settle(seen_by(holds, visible_projects(who)), since, end)

    def minutes(self, who: Principal, last_s: float, until: float | None) -> Sequence[MinuteUsage]:
        """Usage by the minute, in the last seconds until an instant; None: until now.

        Raises BadRequest if that is too much at once.
        """
        end = self.clock.now() if until is None else until
        projects = visible_projects(who)
        found = self.store.minutes(
            projects=projects, since=end - last_s, until=end, limit=MOST_MINUTES + 1
        )
        if len(found) > MOST_MINUTES:
            raise _too_much(f"{MOST_MINUTES:,} lines")
        return found


def _too_much(what: str) -> BadRequest:
    return BadRequest(problem=f"these are more than {what}", fix="Ask for a shorter time.")
