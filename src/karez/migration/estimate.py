"""Estimates the effort of a migration: hours by rule, days, and the automatic share."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from karez.migration.findings import Kind
from karez.migration.repo_report import RepoReport

AGAIN = 0.2
"""Cost of each further construct of a rule in a file relative to the first; an assumption."""
HOURS_A_DAY = 6.0
VERIFY_H = 4.0
"""Hours to compare the result with the original, for a repository."""
VERIFY_FILE_H = 0.1
"""Further hours to compare, for each changed file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The share of one rule and kind in the estimate."""

    rule: str
    kind: Kind
    count: int
    files: int
    hours_each: float
    hours: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The estimate for a repository."""

    rows: Sequence[Row]
    verify_h: float
    score: float
    """Share of constructs that are rewritten automatically, 0 to 1; 1 if there are none."""

    @property
    def hours(self) -> float:
        """Working hours of one person."""
        return self.verify_h + sum(row.hours for row in self.rows)

    @property
    def days(self) -> float:
        """Working days of one person, at six hours a day."""
        return self.hours / HOURS_A_DAY

    def arithmetic(self) -> str:
        """Return the calculation of the days as text."""
        by_kind = {
            kind: sum(row.hours for row in self.rows if row.kind == kind)
            for kind in (Kind.AUTOMATIC, Kind.ASSISTED, Kind.MANUAL)
        }
        parts = [f"{hours:.1f} h {kind.value}" for kind, hours in by_kind.items()]
        return (
            f"({' + '.join(parts)} + {self.verify_h:.1f} h to verify) / {HOURS_A_DAY:.0f} h a day"
        )


def estimate(report: RepoReport) -> Estimate:
    """Estimate the effort of one person who knows the code; assumptions, not measurements."""
    places: dict[tuple[str, Kind], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in report.findings:
        if one.kind != Kind.KEEP:
            places[one.rule, one.kind][one.path].append(one.hours)
    rows = []
    for (rule, kind), files in places.items():
        again = 1.0 if kind == Kind.AUTOMATIC or rule == "cuda-kernel" else AGAIN
        hours = sum(each[0] + again * sum(each[1:]) for each in files.values())
        count = sum(map(len, files.values()))
        first = next(iter(files.values()))[0]
        rows.append(
            Row(rule=rule, kind=kind, count=count, files=len(files), hours_each=first, hours=hours)
        )
    rows.sort(key=lambda row: (-row.hours, row.rule))
    counts = report.counts
    bound = sum(counts[kind] for kind in (Kind.AUTOMATIC, Kind.ASSISTED, Kind.MANUAL))
    touched = len({path for files in places.values() for path in files})
    return Estimate(
        rows=rows,
        verify_h=VERIFY_H + VERIFY_FILE_H * touched if bound else 0.0,
        score=counts[Kind.AUTOMATIC] / bound if bound else 1.0,
    )
