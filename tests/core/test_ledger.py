"""Prices and the ledger: costs are exact, and a changed, missing or added line is seen."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.ledger import Bill, BrokenLedger, LedgerLine, line_body, sealed, verify
from karez.core.prices import FREE, MAX_PRICE, MICRO, Price, cost_nano, price_of
from karez.core.usage import Call

tokens = st.integers(0, 2**31 - 1)
amounts = st.integers(0, MAX_PRICE)
NOON, NIGHT = 12 * 3600.0, 23 * 3600.0


def call(number: int = 0) -> Call:
    return Call(
        id=f"c{number}",
        at=NOON,
        project="p",
        key_id="k",
        service="chat",
        prompt_tokens=100,
        completion_tokens=10,
        cached_tokens=40,
        status=200,
        duration_s=1.0,
    )


PRICE = Price(model="chat", prompt=2 * MICRO, cached=MICRO, completion=10 * MICRO)


def ledger(count: int) -> list[LedgerLine]:
    lines, before = [], ""
    for seq in range(1, count + 1):
        body = line_body(call(seq), PRICE)
        before = sealed(before, body)
        lines.append(LedgerLine(project="p", seq=seq, body=body, hash=before))
    return lines


def test_a_call_costs_what_its_tokens_do() -> None:
    # 60 at 2, 40 at 1 and 10 at 10 for a million
    found = cost_nano(PRICE, at=NOON, prompt_tokens=100, cached_tokens=40, completion_tokens=10)
    assert found == (60 * 2 + 40 * 1 + 10 * 10) * 1000
    same = replace(PRICE, cached=None)
    found = cost_nano(same, at=NOON, prompt_tokens=100, cached_tokens=40, completion_tokens=10)
    assert found == (100 * 2 + 10 * 10) * 1000


@pytest.mark.parametrize(
    ("hours", "at", "percent"),
    [
        ("22:00-06:00", NOON, 100),
        ("22:00-06:00", NIGHT, 30),
        ("22:00-06:00", 5 * 3600.0 + 59 * 60, 30),
        ("22:00-06:00", 6 * 3600.0, 100),
        ("08:00-20:00", NOON, 30),
        ("08:00-20:00", NIGHT, 100),
        ("", NIGHT, 100),
    ],
)
def test_off_peak_hours_may_pass_midnight(hours: str, at: float, percent: int) -> None:
    price = replace(PRICE, off_peak=hours, off_peak_percent=30)
    assert price.percent_at(at) == percent
    assert price.percent_at(at + 20_000 * 86_400) == percent


@given(amounts, amounts, amounts, tokens, tokens, tokens)
def test_costs_fit_a_column_and_more_tokens_never_cost_less(
    prompt: int, cached: int, completion: int, asked: int, known: int, said: int
) -> None:
    price = Price(prompt=prompt, cached=min(cached, prompt), completion=completion)
    cost = cost_nano(price, at=0, prompt_tokens=asked, cached_tokens=known, completion_tokens=said)
    assert 0 <= cost < 2**63
    for more in ((asked + 1, known, said), (asked, known, said + 1)):
        names = ("prompt_tokens", "cached_tokens", "completion_tokens")
        assert cost_nano(price, at=0, **dict(zip(names, more, strict=True))) >= cost
    assert cost_nano(FREE, at=0, prompt_tokens=1, cached_tokens=0, completion_tokens=1) == 0


def test_the_price_of_a_model_goes_before_that_of_all() -> None:
    every = Price(prompt=1)
    prices = {"chat": PRICE, "*": every}
    assert price_of(prices, "chat") is PRICE
    assert price_of(prices, "other") is every
    assert price_of({}, "chat") is FREE


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt": -1}, "between 0 and 10,000"),
        ({"completion": MAX_PRICE + 1}, "between 0 and 10,000"),
        ({"off_peak": "9-17"}, "are no hours"),
        ({"off_peak": "24:00-06:00"}, "are no hours"),
        ({"off_peak_percent": 101}, "between 0 and 100"),
        ({"model": "no/name"}, "no/name"),
    ],
)
def test_what_is_no_price_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(PRICE, **change)


def test_a_whole_ledger_adds_up_in_pieces() -> None:
    lines, bill = ledger(7), Bill(project="p")
    verify(bill, lines[:3])
    verify(bill, lines[3:])
    assert (bill.lines, bill.last_hash) == (7, lines[-1].hash)
    assert (bill.prompt_tokens, bill.cached_tokens, bill.completion_tokens) == (700, 280, 70)
    assert bill.cost_nano == bill.by_model["chat"] == 7 * 260_000


@given(st.integers(0, 5), st.sampled_from(["tokens", "cost", "drop", "swap", "hash", "forge"]))
def test_no_line_is_changed_unseen(at: int, how: str) -> None:
    lines = ledger(7)
    facts = json.loads(lines[at].body)
    match how:
        case "tokens":
            facts["prompt_tokens"] = 1
            lines[at] = replace(lines[at], body=json.dumps(facts))
        case "cost":
            facts["cost_nano"] = 0
            lines[at] = replace(lines[at], body=json.dumps(facts))
        case "drop":
            del lines[at]
        case "swap":
            lines[at], lines[at + 1] = lines[at + 1], lines[at]
        case "hash":
            lines[at] = replace(lines[at], hash="0" * 64)
        case "forge":  # all lines are sealed anew, with a cost that does not follow
            facts["cost_nano"] = 0
            lines[at] = replace(lines[at], body=json.dumps(facts))
            before = lines[at - 1].hash if at else ""
            for number in range(at, len(lines)):
                before = sealed(before, lines[number].body)
                lines[number] = replace(lines[number], hash=before)
    with pytest.raises(BrokenLedger, match="line"):
        verify(Bill(project="p"), lines)
