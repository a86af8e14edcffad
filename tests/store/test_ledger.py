"""The ledger, usage by the minute and what was spent, in both databases."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from karez.core.ledger import Bill, verify
from karez.core.prices import MICRO, Price
from karez.core.usage import Call
from karez.store.sql import SqlStore

DAY_S = 86_400.0


def call(number: int, at: float = 30.0, project: str = "p") -> Call:
    return Call(
        id=f"c{number}",
        at=at,
        project=project,
        key_id="k",
        service="chat",
        prompt_tokens=100,
        cached_tokens=40,
        completion_tokens=10,
        status=200,
        duration_s=1.0,
    )


@pytest.fixture
def priced(store: SqlStore) -> SqlStore:
    store.usage.put_price(Price(model="chat", prompt=9 * MICRO))
    store.usage.put_price(Price(model="chat", prompt=2 * MICRO, completion=10 * MICRO))
    return store


def test_lines_of_several_writers_at_once_are_one_chain_each_call_once(priced: SqlStore) -> None:
    batches = [[call(n) for n in range(at, at + 20)] for at in range(0, 100, 10)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(priced.usage.add_calls, batches))
    bill = Bill(project="p")
    verify(bill, priced.usage.ledger("p", after=0, limit=60))
    verify(bill, priced.usage.ledger("p", after=60, limit=1000))
    assert (bill.lines, bill.cost_nano) == (110, 110 * 300_000)
    (row,) = priced.usage.summary(projects=None, now=99.0)
    assert (row.requests, row.cost_nano) == (110, bill.cost_nano)


def test_calls_are_summed_by_the_minute_and_by_the_month(priced: SqlStore) -> None:
    calls = [call(n, at=50.0 + 10 * n) for n in range(4)]
    priced.usage.add_calls([*calls, call(8, project="q"), call(9, at=40 * DAY_S)])
    rows = priced.usage.minutes(projects=["p"], since=0.0, until=DAY_S, limit=10)
    assert [(row.minute, row.requests) for row in rows] == [(0, 1), (60, 3)]
    assert [(row.cached_tokens, row.cost_nano) for row in rows] == [(40, 300_000), (120, 900_000)]
    every = priced.usage.minutes(projects=None, since=0.0, until=DAY_S, limit=10)
    assert [row.project for row in every] == ["p", "q", "p"]
    assert priced.usage.spend(10 * DAY_S) == {"p": 1_200_000, "q": 300_000}
    assert priced.usage.spend(40 * DAY_S) == {"p": 300_000}


def test_a_price_takes_the_place_of_one_of_its_model(priced: SqlStore) -> None:
    assert [price.prompt for price in priced.usage.prices()] == [2 * MICRO]
    assert priced.usage.drop_price("chat")
    assert not priced.usage.drop_price("chat")
