"""Reads tables of text; errors name the file, the line and the column."""

import csv
import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from karez.core.errors import BadRequest

MOST_SECONDS = 1e9
"""Longest span of time that a cell may state."""
MOST_INSTANT = 1e11
"""UTC epoch seconds in the year 5138: a later instant is a typing error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a table, read column by column."""

    file: str
    number: int
    cells: Mapping[str, str]

    def text(self, column: str) -> str:
        """Text of a cell; empty where the table lacks the column."""
        return self.cells.get(column) or ""

    def whole(self, column: str, *, low: int = 0, high: int = 1 << 40) -> int:
        """A whole number in these bounds; an empty cell is 0. Raises BadRequest."""
        return int(self.number_in(column, low=low, high=high, whole=True))

    def number_in(
        self, column: str, *, low: float = 0.0, high: float = 1e15, whole: bool = False
    ) -> float:
        """A number in these bounds; an empty cell is 0. Raises BadRequest."""
        text = self.text(column).strip() or "0"
        try:
            value = float(text)
        except ValueError:
            raise self.problem(column, f"{text[:40]!r} is not a number") from None
        if not low <= value <= high:
            raise self.problem(column, f"{text[:40]} is not between {low:g} and {high:g}")
        if whole and value != int(value):
            raise self.problem(column, f"{text[:40]} is not a whole number")
        return value

    def instant(self, column: str) -> float:
        """Seconds of a cell that holds seconds or a date and time. Raises BadRequest."""
        text = self.text(column).strip()
        try:
            seconds = float(text)
        except ValueError:
            return self._date(column, text)
        if not 0 <= seconds <= MOST_INSTANT:
            raise self.problem(column, f"{text[:40]} is not between 0 and {MOST_INSTANT:g}")
        return seconds

    def _date(self, column: str, text: str) -> float:
        try:
            moment = datetime.datetime.fromisoformat(text[:26])
        except ValueError:
            raise self.problem(column, f"{text[:40]!r} is neither a date nor a number") from None
        return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()

    def problem(self, column: str, what: str) -> BadRequest:
        """The error for one cell."""
        return BadRequest(problem=f"in {self.file}, line {self.number}, column {column}: {what}")


def read_table(lines: Iterable[str], file: str, columns: Sequence[str]) -> Iterator[Line]:
    """The lines of a CSV file that has at least these columns.

    Raises:
        BadRequest: No heading, a column is missing, or a line has too few or too many cells.
    """
    reader = csv.reader(lines)
    try:
        heads = [head.strip() for head in next(reader, [])]
        twice = sorted({head for head in heads if heads.count(head) > 1})
        if twice:
            raise BadRequest(problem=f"in {file}, line 1: duplicate column {twice[0]!r}")
        missing = [column for column in columns if column not in heads]
        if missing:
            raise BadRequest(
                problem=f"in {file}, line 1: the column {missing[0]!r} is missing",
                fix=f"The first line should name the columns {', '.join(columns)}.",
            )
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(heads):
                raise BadRequest(
                    problem=f"in {file}, line {reader.line_num}: {len(cells)} cells under "
                    f"{len(heads)} headings"
                )
            cells_by_head = dict(zip(heads, cells, strict=True))
            yield Line(file=file, number=reader.line_num, cells=cells_by_head)
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadRequest(problem=f"in {file}: invalid CSV: {error}") from error
