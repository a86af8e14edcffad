"""Prices of models, and what a call costs. Pure; amounts are whole numbers, so sums are exact.

A price is in millionths of the currency for a million tokens, so that price times tokens is in
10^-12 of it; a cost is in billionths (nano).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from karez.core.names import check_name
from karez.core.validation import FORBID

ANY_MODEL: Final = "*"
MICRO, NANO = 1_000_000, 1_000_000_000
MAX_PRICE: Final = 10_000 * MICRO
"""Ten thousand of the currency for a million tokens: beyond that, it is a typing error."""
PERCENT: Final = 100
DAY_MINUTES: Final = 1440
_HOURS: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What the tokens of a model cost, in millionths of the currency for a million tokens."""

    __pydantic_config__: ClassVar[Any] = FORBID

    model: str = ANY_MODEL
    """Name of the service; `*`: all that have no price of their own."""
    prompt: int = 0
    cached: int | None = None
    """Of prompt tokens that an engine had computed before; None: as others."""
    completion: int = 0
    off_peak: str = ""
    """Hours of the day in UTC in which another rate holds, such as 22:00-06:00."""
    off_peak_percent: int = PERCENT
    """Part of the price that is charged then."""

    def __post_init__(self) -> None:
        if self.model != ANY_MODEL:
            check_name(self.model)
        for amount in (self.prompt, self.cached or 0, self.completion):
            if not 0 <= amount <= MAX_PRICE:
                raise ValueError(
                    f"a price is between 0 and {MAX_PRICE // MICRO:,} a million tokens"
                )
        check_off_peak(self.off_peak, self.off_peak_percent)

    def percent_at(self, at: float) -> int:
        """Part of the price that is charged at an instant (UTC epoch seconds)."""
        is_in = is_within(off_peak_minutes(self.off_peak), int(at // 60) % DAY_MINUTES)
        return self.off_peak_percent if is_in else PERCENT


def check_off_peak(hours: str, percent: int) -> None:
    """Raise ValueError unless these are hours of a day, or none, and a part of a price."""
    if hours and not _HOURS.fullmatch(hours):
        raise ValueError(f"{hours!r} are no hours; write 22:00-06:00")
    if not 0 <= percent <= PERCENT:
        raise ValueError("the off-peak part is between 0 and 100 percent")


def off_peak_minutes(hours: str) -> tuple[int, int] | None:
    """The minutes of the day (UTC) in which off-peak hours begin and end; None: there are none."""
    found = _HOURS.fullmatch(hours)
    if found is None:
        return None
    return int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])


def is_within(minutes: tuple[int, int] | None, minute: int) -> bool:
    """Whether a minute of the day is in off-peak hours, which may pass midnight."""
    if minutes is None:
        return False
    begin, end = minutes
    return begin <= minute < end if begin <= end else minute >= begin or minute < end


FREE: Final = Price()


def cost_nano(
    price: Price, *, at: float, prompt_tokens: int, cached_tokens: int, completion_tokens: int
) -> int:
    """What a call costs, in billionths of the currency, rounded down.

    Args:
        price: Of its model.
        at: When it began, in UTC epoch seconds.
        prompt_tokens: All tokens of its prompt.
        cached_tokens: Those of them that were computed before.
        completion_tokens: Tokens of its answer.
    """
    cached = min(cached_tokens, prompt_tokens)
    of_cached = price.prompt if price.cached is None else price.cached
    whole = (prompt_tokens - cached) * price.prompt + cached * of_cached
    whole += completion_tokens * price.completion
    return whole * price.percent_at(at) // PERCENT // (MICRO * MICRO // NANO)


def month_of(at: float) -> str:
    """The calendar month of an instant in UTC, such as 2026-11."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m")


def price_of(prices: Mapping[str, Price], model: str) -> Price:
    """The price of a model among all, by their model."""
    return prices.get(model) or prices.get(ANY_MODEL) or FREE
