"""Prices of devices: what a time costs does not depend on how it is cut into lines."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.device_prices import (
    HOUR_MS,
    DevicePrice,
    DeviceTime,
    by_month,
    device_cost_nano,
    device_price_of,
)
from karez.core.ledger import Bill, BrokenLedger, LedgerLine, device_line_body, sealed, verify
from karez.core.prices import MAX_PRICE, MICRO, NANO, month_of

PRICE = DevicePrice(device="npu", hour=2 * MICRO, off_peak="22:00-06:00", off_peak_percent=50)
minutes = st.integers(0, 3 * 1440)
clock = st.builds("{:02d}:{:02d}".format, st.integers(0, 23), st.integers(0, 59))


def test_a_day_of_two_and_a_half_devices() -> None:
    # 16 hours at 2 and 8 at 1, for 2.5 devices
    assert device_cost_nano(PRICE, 2500, 0, 24 * HOUR_MS) == 100 * NANO
    assert device_cost_nano(PRICE, 1000, 21 * HOUR_MS, 23 * HOUR_MS) == 3 * NANO
    assert device_cost_nano(PRICE, 1000, 5, 5) == 0


@given(clock, clock, st.integers(0, 100), minutes, minutes, minutes)
def test_the_cost_of_a_time_is_that_of_its_parts(
    begin: str, end: str, percent: int, first: int, second: int, third: int
) -> None:
    price = replace(PRICE, off_peak=f"{begin}-{end}", off_peak_percent=percent)
    a, b, c = (each * 60_000 for each in sorted((first, second, third)))
    whole = device_cost_nano(price, 1000, a, c)
    parts = device_cost_nano(price, 1000, a, b) + device_cost_nano(price, 1000, b, c)
    assert 0 <= whole - parts <= 1  # each is rounded down
    each = (device_cost_nano(_flat(price, at), 1000, at, at + 60_000) for at in range(a, b, 60_000))
    assert 0 <= device_cost_nano(price, 1000, a, b) - sum(each) <= (b - a) // 60_000


def _flat(price: DevicePrice, at_ms: int) -> DevicePrice:
    """A price without hours that is what this one is at an instant."""
    percent = price.off_peak_percent if _is_off_peak(price, at_ms) else 100
    return replace(price, hour=price.hour * percent // 100, off_peak="")


def _is_off_peak(price: DevicePrice, at_ms: int) -> bool:
    begin, _, end = price.off_peak.partition("-")
    now = datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%H:%M")
    return begin <= now < end if begin <= end else now >= begin or now < end


@given(st.integers(0, 2**41), st.integers(0, 400 * 24 * HOUR_MS))
def test_months_are_cut_where_they_begin(since_ms: int, length_ms: int) -> None:
    parts = list(by_month(since_ms, since_ms + length_ms))
    assert sum(end - begin for begin, end in parts) == length_ms
    for begin, end in parts:
        assert month_of(begin / 1000) == month_of((end - 1) / 1000)
    months = [month_of(begin / 1000) for begin, _ in parts]
    assert months == sorted(set(months))


def test_a_model_goes_before_its_kind_and_emulated_devices_have_a_price_of_their_own() -> None:
    model = DevicePrice(device="npu:910b", hour=3)
    prices = {price.device: price for price in (PRICE, model)}
    assert device_price_of(prices, "npu:910b") is model
    assert device_price_of(prices, "npu:910c") is PRICE
    assert device_price_of(prices, "npu:emulated") is None
    assert device_price_of(prices, "gpu") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "tpu"}, "is no device"),
        ({"device": "memory"}, "is no device"),
        ({"device": "npu:a/b"}, "is no device"),
        ({"hour": -1}, "between 0 and 10,000"),
        ({"hour": MAX_PRICE + 1}, "between 0 and 10,000"),
        ({"off_peak": "9-17"}, "are no hours"),
        ({"off_peak_percent": 101}, "between 0 and 100"),
    ],
)
def test_what_is_no_price_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(PRICE, **change)


def test_a_line_of_device_time_is_computed_again() -> None:
    time = DeviceTime(
        id="j@1",
        workload="j",
        name="train",
        project="p",
        device="npu:910b",
        milli=4000,
        since_ms=0,
        until_ms=HOUR_MS,
    )
    body = device_line_body(time, PRICE)
    bill = Bill(project="p")
    verify(bill, [LedgerLine(project="p", seq=1, body=body, hash=sealed("", body))])
    assert bill.by_device == {"npu:910b": 4 * NANO}
    assert bill.device_seconds == {"npu:910b": 4 * 3600.0}
    forged = body.replace('"until_ms":3600000', '"until_ms":1800000')
    line = LedgerLine(project="p", seq=1, body=forged, hash=sealed("", forged))
    with pytest.raises(BrokenLedger, match="by its use and rates"):
        verify(Bill(project="p"), [line])
