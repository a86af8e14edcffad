"""Prices of devices by the hour, and what devices cost that were held for a time. Pure.

Amounts are whole numbers, so that anyone who computes a bill again finds the same.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from karez.core.devices import EMULATED, IN_BYTES, DeviceKind
from karez.core.prices import (
    DAY_MINUTES,
    MAX_PRICE,
    MICRO,
    NANO,
    PERCENT,
    check_off_peak,
    is_within,
    off_peak_minutes,
)
from karez.core.units import MILLI
from karez.core.validation import FORBID

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
_DAY_MS: Final = DAY_MINUTES * MINUTE_MS
_NAME: Final = re.compile(r"([a-z]+)(?::[^\s/][^/\n]{0,99})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePrice:
    """What one device costs for an hour, in millionths of the currency."""

    __pydantic_config__: ClassVar[Any] = FORBID

    device: str
    """A kind, such as `npu`, or a model of it as the pool names it, such as `npu:910b`."""
    hour: int
    off_peak: str = ""
    """Hours of the day in UTC in which another rate holds, such as 22:00-06:00."""
    off_peak_percent: int = PERCENT
    """Part of the price that is charged then."""
    services: bool = False
    """Whether devices of services are billed too; their callers pay for tokens in any case."""

    def __post_init__(self) -> None:
        found = _NAME.fullmatch(self.device)
        if found is None or found[1] not in set(DeviceKind) - set(IN_BYTES):
            raise ValueError(f"{self.device!r} is no device; write npu, gpu:h100 or cpu")
        if not 0 <= self.hour <= MAX_PRICE:
            raise ValueError(f"a price is between 0 and {MAX_PRICE // MICRO:,} an hour")
        check_off_peak(self.off_peak, self.off_peak_percent)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTime:
    """Devices of one model that a workload held for a time."""

    id: str
    workload: str
    name: str
    project: str
    device: str
    """Kind and model, such as `npu:910b`."""
    milli: int
    """Thousandths of devices."""
    since_ms: int
    """UTC epoch milliseconds."""
    until_ms: int


def device_price_of(prices: Mapping[str, DevicePrice], device: str) -> DevicePrice | None:
    """The price of a device among all: that of its model, else that of its kind; None: free.

    Emulated devices have only a price of their own.
    """
    kind, _, model = device.partition(":")
    return prices.get(device) or (None if model == EMULATED else prices.get(kind))


def device_cost_nano(price: DevicePrice, milli: int, since_ms: int, until_ms: int) -> int:
    """What devices cost for a time, in billionths of the currency, rounded down.

    Args:
        price: Of one device for an hour.
        milli: Thousandths of devices.
        since_ms: UTC epoch milliseconds.
        until_ms: The same; the time may pass into and out of off-peak hours.
    """
    off_peak = off_peak_minutes(price.off_peak)
    if off_peak is None:
        weighted_ms = (until_ms - since_ms) * PERCENT
    else:
        weighted_ms = 0
        for begin_ms, end_ms in _cut(off_peak, since_ms, until_ms):
            is_off_peak = is_within(off_peak, begin_ms // MINUTE_MS % DAY_MINUTES)
            weighted_ms += (end_ms - begin_ms) * (
                price.off_peak_percent if is_off_peak else PERCENT
            )
    return price.hour * milli * weighted_ms * (NANO // MICRO) // (MILLI * HOUR_MS * PERCENT)


def _cut(minutes: tuple[int, int], since_ms: int, until_ms: int) -> Iterator[tuple[int, int]]:
    """A time in pieces in each of which one rate holds."""
    while since_ms < until_ms:
        day_ms = since_ms - since_ms % _DAY_MS
        edges = (
            day + minute * MINUTE_MS for day in (day_ms, day_ms + _DAY_MS) for minute in minutes
        )
        end_ms = min(edge for edge in edges if edge > since_ms)
        yield since_ms, min(end_ms, until_ms)
        since_ms = end_ms


def month_begun_ms(at: float) -> int:
    """When the calendar month (UTC) of an instant began, in UTC epoch milliseconds."""
    now = datetime.fromtimestamp(at, UTC)
    return int(datetime(now.year, now.month, 1, tzinfo=UTC).timestamp()) * 1000


def by_month(since_ms: int, until_ms: int) -> Iterator[tuple[int, int]]:
    """A time in pieces, each in one calendar month (UTC)."""
    while since_ms < until_ms:
        begun = datetime.fromtimestamp(since_ms / 1000, UTC)
        year, month = divmod(begun.year * 12 + begun.month, 12)
        following = datetime(year, month + 1, 1, tzinfo=UTC)
        end_ms = min(until_ms, int(following.timestamp()) * 1000)
        yield since_ms, end_ms
        since_ms = end_ms
