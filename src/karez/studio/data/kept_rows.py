"""The rows of a data set while it is made, and what was left out of them. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from karez.core.table_formats import Part
from karez.studio.data.row_shapes import ChatRow

EXAMPLES = 20
"""Rows of each kind that were left out and are listed."""


@dataclass(slots=True)
class Rows:
    """What was read, and what was left out of it."""

    rows: list[ChatRow] = field(default_factory=list)
    parts: list[Part | None] = field(default_factory=list)
    """What each row's file is named for."""
    shapes: dict[str, str] = field(default_factory=dict)
    """File -> how its columns were read."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason -> number of rows."""
    examples: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, why: str, what: str) -> None:
        """Count a row that is left out."""
        self.dropped[why] += 1
        examples = self.examples.setdefault(why, [])
        if len(examples) < EXAMPLES:
            examples.append(what[:400])

    def keep(self, stays: Sequence[bool], why: str) -> None:
        """Leave rows out."""
        for row, is_kept in zip(self.rows, stays, strict=True):
            if not is_kept:
                self.drop(why, row.prompt)
        self.parts = [part for part, is_kept in zip(self.parts, stays, strict=True) if is_kept]
        self.rows = [row for row, is_kept in zip(self.rows, stays, strict=True) if is_kept]
