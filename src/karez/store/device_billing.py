"""SQL of device time in the ledger: each moment that devices were held is billed once.

The lines and the instant up to which an allocation is billed are written in one transaction:
whoever is killed before it bills later, and whoever is killed after it has billed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, bindparam, delete, select, update

from karez.core.codec import from_text, to_text
from karez.core.device_prices import (
    HOUR_MS,
    DevicePrice,
    DeviceTime,
    by_month,
    device_cost_nano,
    device_price_of,
    month_begun_ms,
)
from karez.core.ledger import device_line_body
from karez.core.prices import month_of
from karez.store import schema
from karez.store.allocations import Grants
from karez.store.database import Database
from karez.store.device_amounts import device_amounts
from karez.store.ledger import LedgerWriter, spend_in

_AT_ONCE: Final = 500
"""Allocations in one transaction: others write between two."""
_MOST_NEW: Final = 10_000
_HELD = schema.allocations
_Key = tuple[str, int]
"""(workload, epoch) of an allocation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cost:
    """Device time of one model, its price, and what it costs."""

    time: DeviceTime
    price: DevicePrice
    nano: int

    @property
    def month(self) -> str:
        return month_of(self.time.since_ms / 1000)


def bill_devices(db: Database, now: float) -> None:
    """Write lines for what was given back, and up to the last full hour for what is held still."""
    _note_devices(db)
    until = now - now % (HOUR_MS / 1000)
    _bill_all(db, _HELD.c.until.is_not(None) | (_HELD.c.unbilled_since < until), until)


def put_device_price(db: Database, price: DevicePrice, now: float) -> None:
    """Store a price, in place of one of that device; what was held before has the price before."""
    query = db.into(schema.device_prices).values(device=price.device, body=to_text(price))
    query = query.on_conflict_do_update(
        index_elements=["device"], set_={"body": query.excluded.body}
    )
    with _all_billed(db, now) as tx:
        tx.execute(query)


def drop_device_price(db: Database, device: str, now: float) -> bool:
    """Remove a price; what was held before is billed by it. False: there is none."""
    table = schema.device_prices
    with _all_billed(db, now) as tx:
        return tx.execute(delete(table).where(table.c.device == device)).rowcount == 1


@contextmanager
def _all_billed(db: Database, now: float) -> Iterator[Connection]:
    """A transaction in which all that was held until an instant is billed; prices may change."""
    is_due = _HELD.c.unbilled_since < now
    _bill_all(db, is_due, now)
    with db.write() as tx:
        _bill(db, tx, is_due, now)
        yield tx


def _bill_all(db: Database, is_due: ColumnElement[bool], until: float) -> None:
    """Bill what is due, some at a time: others write meanwhile."""
    while True:
        with db.read() as tx:
            if tx.execute(_select_unbilled().where(is_due).limit(1)).first() is None:
                return
        with db.write() as tx:
            _bill(db, tx, is_due, until, limit=_AT_ONCE)


def _note_devices(db: Database) -> None:
    """Note which models the devices of new allocations are: nodes may say something else later."""
    is_new = (_HELD.c.unbilled_since >= 0) & _HELD.c.devices.is_(None)
    columns = (_HELD.c.workload, _HELD.c.epoch, _HELD.c.grants)
    with db.read() as tx:
        rows = tx.execute(select(*columns).where(is_new).limit(_MOST_NEW)).all()
        amounts = device_amounts(tx, [from_text(Grants, row.grants) for row in rows])
    if not rows:
        return
    own = (_HELD.c.workload == bindparam("of"), _HELD.c.epoch == bindparam("at"))
    change = update(_HELD).where(*own).values(devices=bindparam("now"))
    values = [
        {"of": row.workload, "at": row.epoch, "now": json.dumps(held)}
        for row, held in zip(rows, amounts, strict=True)
    ]
    with db.write() as tx:
        tx.execute(change, values)


def device_prices(tx: Connection) -> list[DevicePrice]:
    """The prices of devices."""
    table = schema.device_prices
    bodies = tx.execute(select(table.c.body).order_by(table.c.device)).scalars()
    return [from_text(DevicePrice, body) for body in bodies]


def spend_until(tx: Connection, now: float) -> dict[str, int]:
    """What each project has spent in the month of an instant, with what it holds until then."""
    spent = spend_in(tx, month_of(now))
    priced = {price.device: price for price in device_prices(tx)}
    rows = tx.execute(_select_unbilled()).all() if priced else ()
    noted = _look_up(tx, rows)
    month_ms = month_begun_ms(now)
    for row in rows:
        since_ms = max(month_ms, round(1000 * row.unbilled_since))
        until_ms = round(1000 * (now if row.until is None else row.until))
        nano = sum(
            device_cost_nano(price, milli, since_ms, until_ms)
            for device, milli in _devices_of(row, noted).items()
            if (price := _price_of(row, device, priced)) is not None and since_ms < until_ms
        )
        if nano:
            spent[row.project] = spent.get(row.project, 0) + nano
    return spent


def _select_unbilled() -> Select[Any]:
    """SELECT of the allocations that are not wholly billed, with their workloads."""
    work = schema.workloads
    names = ("workload", "epoch", "until", "unbilled_since", "devices", "costs")
    query = select(*(_HELD.c[name] for name in names), work.c.project, work.c.name, work.c.kind)
    query = query.join(work, work.c.id == _HELD.c.workload)
    return query.where(_HELD.c.unbilled_since >= 0).order_by(_HELD.c.workload, _HELD.c.epoch)


def _bill(
    db: Database,
    tx: Connection,
    is_due: ColumnElement[bool],
    until: float,
    limit: int | None = None,
) -> None:
    writer = LedgerWriter(db, tx)
    rows = tx.execute(_select_unbilled().where(is_due).limit(limit)).all()
    changes = []
    for row, costs in _costs(tx, rows, device_prices(tx), until):
        of = json.loads(row.costs or "{}")
        for cost in costs:
            writer.append(
                row.project, device_line_body(cost.time, cost.price), cost.month, cost.nano
            )
            of[cost.time.device] = of.get(cost.time.device, 0) + cost.nano
        billed = None if row.until is not None else until
        text = json.dumps(of) if of else None
        changes.append({"of": row.workload, "at": row.epoch, "billed": billed, "now": text})
    writer.write()
    own = (_HELD.c.workload == bindparam("of"), _HELD.c.epoch == bindparam("at"))
    change = update(_HELD).where(*own)
    change = change.values(unbilled_since=bindparam("billed"), costs=bindparam("now"))
    if changes:
        tx.execute(change, changes)


def _costs(
    tx: Connection, rows: Sequence[Any], prices: Sequence[DevicePrice], until: float
) -> Iterator[tuple[Any, list[_Cost]]]:
    """Each allocation, and the costs of its devices up to an instant or until it was over."""
    priced = {price.device: price for price in prices}
    noted = _look_up(tx, rows) if priced else {}
    for row in rows:
        until_ms = round(1000 * (until if row.until is None else row.until))
        yield row, list(_of_one(row, _devices_of(row, noted), priced, until_ms))


def _devices_of(row: Any, noted: Mapping[_Key, Mapping[str, int]]) -> Mapping[str, int]:
    """Thousandths of devices of an allocation."""
    if row.devices is None:
        return noted.get((row.workload, row.epoch), {})
    held: dict[str, int] = json.loads(row.devices)
    return held


def _price_of(row: Any, device: str, priced: Mapping[str, DevicePrice]) -> DevicePrice | None:
    """The price of a device of an allocation; None: it is free."""
    price = device_price_of(priced, device)
    return price if price is not None and (price.services or row.kind == "job") else None


def _look_up(tx: Connection, rows: Sequence[Any]) -> dict[_Key, dict[str, int]]:
    """Devices of allocations that are so new that they are not noted yet."""
    if all(row.devices is not None for row in rows):
        return {}
    is_new = (_HELD.c.unbilled_since >= 0) & _HELD.c.devices.is_(None)
    found = tx.execute(select(_HELD.c.workload, _HELD.c.epoch, _HELD.c.grants).where(is_new)).all()
    amounts = device_amounts(tx, [from_text(Grants, row.grants) for row in found])
    return {(row.workload, row.epoch): held for row, held in zip(found, amounts, strict=True)}


def _of_one(
    row: Any, held: Mapping[str, int], priced: Mapping[str, DevicePrice], until_ms: int
) -> Iterator[_Cost]:
    for device, milli in held.items():
        price = _price_of(row, device, priced)
        if price is None:
            continue
        for begin, end in by_month(round(1000 * row.unbilled_since), until_ms):
            time = DeviceTime(
                id=f"{row.workload}@{row.epoch}:{device}:{begin}",
                workload=row.workload,
                name=row.name,
                project=row.project,
                device=device,
                milli=milli,
                since_ms=begin,
                until_ms=end,
            )
            nano = device_cost_nano(price, milli, begin, end)
            yield _Cost(time=time, price=price, nano=nano)
