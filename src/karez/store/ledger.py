"""SQL of calls and their ledger: each call once, with a line that seals the one before."""

from collections.abc import Sequence

from sqlalchemy import Connection, cast, func, insert, select
from sqlalchemy.types import BigInteger

from karez.core.codec import from_text, to_text
from karez.core.ledger import LedgerLine, cost_of, line_body, sealed
from karez.core.prices import Price, month_of, price_of
from karez.core.usage import Call, MinuteUsage
from karez.store import schema
from karez.store.database import Database

MINUTE_S = 60
_AT_ONCE = 500
"""Ids in one statement: databases take only so many parameters."""


class LedgerWriter:
    """Appends lines in one transaction; no other writer does, until that ends."""

    def __init__(self, db: Database, tx: Connection) -> None:
        """Wait for the writer before this one."""
        db.next_number(tx, "ledger")  # one at a time: a line seals the one before
        self._db, self._tx = db, tx
        self._last: dict[str, tuple[int, str]] = {}
        self._lines: list[dict[str, object]] = []
        self._spent: dict[tuple[str, str], int] = {}

    def append(self, project: str, body: str, month: str, cost: int) -> None:
        """Seal a line, and count its cost to what its project has spent in a month."""
        seq, before = self._last.get(project) or _last(self._tx, project)
        seal = sealed(before, body)
        self._last[project] = (seq + 1, seal)
        self._lines.append({"project": project, "seq": seq + 1, "body": body, "hash": seal})
        self._spent[project, month] = self._spent.get((project, month), 0) + cost

    def write(self) -> None:
        """Write what was appended."""
        if not self._lines:
            return
        table = schema.spend
        for (project, month), cost in self._spent.items():
            query = self._db.into(table).values(project=project, month=month, cost_nano=cost)
            query = query.on_conflict_do_update(
                index_elements=["project", "month"],
                set_={"cost_nano": table.c.cost_nano + query.excluded.cost_nano},
            )
            self._tx.execute(query)
        self._tx.execute(insert(schema.ledger), self._lines)


def add_calls(db: Database, calls: Sequence[Call]) -> None:
    """Record the calls that are not recorded yet, and their lines, in one transaction."""
    with db.write() as tx:
        writer = LedgerWriter(db, tx)
        known = _known(tx, [call.id for call in calls])
        prices = {price.model: price for price in all_prices(tx)}
        rows = []
        for call in {call.id: call for call in calls if call.id not in known}.values():
            price = price_of(prices, call.service)
            cost = cost_of(call, price)
            writer.append(call.project, line_body(call, price), month_of(call.at), cost)
            rows.append(_row(call, cost))
        if rows:
            tx.execute(insert(schema.calls), rows)
        writer.write()


def spend_in(tx: Connection, month: str) -> dict[str, int]:
    """What each project has spent in a month."""
    table = schema.spend
    query = select(table.c.project, table.c.cost_nano).where(table.c.month == month)
    return {project: int(cost) for project, cost in tx.execute(query)}


def _known(tx: Connection, idents: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for at in range(0, len(idents), _AT_ONCE):
        some = schema.calls.c.id.in_(idents[at : at + _AT_ONCE])
        found.update(tx.execute(select(schema.calls.c.id).where(some)).scalars())
    return found


def _last(tx: Connection, project: str) -> tuple[int, str]:
    """Number and hash of a project's last line."""
    table = schema.ledger
    query = select(table.c.seq, table.c.hash).where(table.c.project == project)
    row = tx.execute(query.order_by(table.c.seq.desc()).limit(1)).first()
    return (0, "") if row is None else (row.seq, row.hash)


def _row(call: Call, cost_nano: int) -> dict[str, object]:
    names = [column.name for column in schema.calls.columns if column.name != "cost_nano"]
    return {**{name: getattr(call, name) for name in names}, "cost_nano": cost_nano}


def lines_of(tx: Connection, project: str, after: int, limit: int) -> list[LedgerLine]:
    """Lines of a project after a number."""
    table = schema.ledger
    query = select(table).where(table.c.project == project, table.c.seq > after)
    return [
        LedgerLine(project=row.project, seq=row.seq, body=row.body, hash=row.hash)
        for row in tx.execute(query.order_by(table.c.seq).limit(limit))
    ]


def minutes(
    tx: Connection, projects: Sequence[str] | None, since: float, until: float, limit: int
) -> list[MinuteUsage]:
    """Calls summed up by minute, project, key and service."""
    calls = schema.calls
    minute = (cast(func.floor(calls.c.at / MINUTE_S), BigInteger) * MINUTE_S).label("minute")
    by = (minute, calls.c.project, calls.c.key_id, calls.c.service)
    names = ("prompt_tokens", "cached_tokens", "completion_tokens", "cost_nano")
    sums = [func.sum(calls.c[name]).label(name) for name in names]
    query = select(*by, func.count().label("requests"), *sums)
    query = query.where(calls.c.at >= since, calls.c.at < until).group_by(*by).order_by(*by)
    if projects is not None:
        query = query.where(calls.c.project.in_(projects))
    return [
        MinuteUsage(
            minute=int(row.minute),
            project=row.project,
            key_id=row.key_id,
            service=row.service,
            requests=row.requests,
            **{name: int(getattr(row, name)) for name in names},
        )
        for row in tx.execute(query.limit(limit))
    ]


def all_prices(tx: Connection) -> list[Price]:
    """The prices of models."""
    bodies = tx.execute(select(schema.prices.c.body).order_by(schema.prices.c.model)).scalars()
    return [from_text(Price, body) for body in bodies]


def put_price(db: Database, price: Price) -> None:
    """Store a price, in place of one of that model."""
    query = db.into(schema.prices).values(model=price.model, body=to_text(price))
    query = query.on_conflict_do_update(
        index_elements=["model"], set_={"body": query.excluded.body}
    )
    with db.write() as tx:
        tx.execute(query)
