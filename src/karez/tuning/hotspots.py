"""Hotspots of a profile, and the sums that they are found by."""

from dataclasses import dataclass, field
from math import isfinite


@dataclass(frozen=True, slots=True, kw_only=True)
class Hotspot:
    """One thing that took time."""

    rule: str
    what: str
    count: int
    time_us: float
    share: float
    """Share of the time of all kernels, or of the steps; 0 where neither applies."""
    reason: str
    source: str


@dataclass(slots=True)
class Total:
    """Number and time of like events."""

    count: int = 0
    time_us: float = 0.0
    details: set[str] = field(default_factory=set)

    def add(self, time_us: float, detail: str = "") -> None:
        """Add one event."""
        self.count += 1
        self.time_us += time_us
        if detail:
            self.details.add(detail)

    def hotspot(
        self, rule: str, what: str, reason: str, *, source: str = "advisor", of_us: float = 0.0
    ) -> Hotspot:
        """The events as a hotspot; `of_us` is the time that its share refers to, 0 for none."""
        share = self.time_us / of_us if of_us else 0.0
        return Hotspot(
            rule=rule,
            what=what,
            count=self.count,
            time_us=self.time_us,
            share=share,
            reason=reason,
            source=source,
        )


def number_of(value: object) -> float:
    """A cell or a JSON value as a finite number; 0 if it is none."""
    try:
        number = float(str(value))
    except ValueError:
        return 0.0
    return number if isfinite(number) else 0.0
