"""Hours in which a service has other bounds for its replicas than at other times. Pure."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, ClassVar, Final

from karez.core.validation import FORBID

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TEXT: Final = re.compile(
    r"(?:(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))? )?"
    r"(?P<begin>(?:[01]\d|2[0-3]):[0-5]\d)-(?P<end>(?:[01]\d|2[0-3]):[0-5]\d|24:00) "
    r"(?P<least>\d{1,6})(?:\.\.(?P<most>\d{1,6}))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSchedule:
    """Hours of some days of the week, in UTC, and how many replicas a service has then."""

    __pydantic_config__: ClassVar[Any] = FORBID

    days: tuple[int, ...] = tuple(range(7))
    """Days of the week on which the hours begin; 0 is Monday."""
    begin: int
    """Minute of the day from which on it holds."""
    end: int
    """Minute of the day until which it holds: of the next day, if it is not after `begin`."""
    min_replicas: int
    max_replicas: int

    def __post_init__(self) -> None:
        if not self.days or not set(self.days) <= set(range(7)):
            raise ValueError("the days of a schedule are numbers from 0 (Monday) to 6")
        if any((after - day) % 7 != 1 for day, after in pairwise(self.days)):
            raise ValueError("the days of a schedule come one after the other; make several of it")
        if not 0 <= self.begin < MINUTES or not 0 <= self.end <= MINUTES:
            raise ValueError(f"the hours of a schedule are minutes of the day, up to {MINUTES}")
        if not 0 <= self.min_replicas <= self.max_replicas or not self.max_replicas:
            raise ValueError("the replicas of a schedule are 0 <= min <= max, and max at least 1")

    def holds_at(self, at: float) -> bool:
        """Whether it holds at an instant, in UTC epoch seconds."""
        now = datetime.fromtimestamp(at, UTC)
        minute, today = now.hour * 60 + now.minute, now.weekday()
        if self.begin < self.end:
            return today in self.days and self.begin <= minute < self.end
        yesterday = (now - timedelta(days=1)).weekday()
        return (today in self.days and minute >= self.begin) or (
            yesterday in self.days and minute < self.end
        )

    @property
    def text(self) -> str:
        """As a user writes it."""
        names = [DAYS[day] for day in self.days]
        days = "" if len(names) == len(DAYS) else names[0]
        days += f"-{names[-1]}" if days and len(names) > 1 else ""
        bounds = f"{self.min_replicas}..{self.max_replicas}"
        hours = f"{_clock(self.begin)}-{_clock(self.end)}"
        return f"{days} {hours} {bounds}".strip()


MINUTES: Final = 24 * 60


def parse_schedule(text: str) -> ReplicaSchedule:
    """Read `mon-fri 08:00-18:00 3..10`, or `22:00-06:00 0..1` for every day. Raises ValueError."""
    found = _TEXT.fullmatch(" ".join(text.split()))
    names = [name for name in (found["first"], found["last"]) if name] if found else []
    if found is None or not set(names) <= set(DAYS):
        raise ValueError(f"{text!r} is no schedule; write 'mon-fri 08:00-18:00 3..10', in UTC")
    days = range(7)
    if names:
        first, last = DAYS.index(names[0]), DAYS.index(names[-1])
        days = range(first, last + 1 if last >= first else last + 8)
    return ReplicaSchedule(
        days=tuple(day % 7 for day in days),
        begin=_minute(found["begin"]),
        end=_minute(found["end"]),
        min_replicas=int(found["least"]),
        max_replicas=int(found["most"] or found["least"]),
    )


def _minute(clock: str) -> int:
    hours, _, minutes = clock.partition(":")
    return int(hours) * 60 + int(minutes)


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
