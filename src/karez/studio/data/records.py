"""Records of tables: rows that know their place, so that errors can name it. Pure."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from karez.core.errors import BadRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One row of a table."""

    place: str
    """File and line, or number of the row, for errors."""
    fields: Mapping[str, object]


def cell_text(record: Record, column: str) -> str:
    """What a cell says, without blanks around it.

    Raises:
        BadRow: The record has no such column, or its cell is empty, NaN, or no text or number.
    """
    place = f"{record.place}, {column}"
    if column not in record.fields:
        has = ", ".join(record.fields)
        problem = f"it is missing; there is: {has}"
        raise BadRow(place=place, problem=problem, fix="Name a column that each row has.")
    cell = record.fields[column]
    fix = "Fill it, drop the row, or leave such rows out (--bad-rows drop)."
    is_nan = isinstance(cell, float) and math.isnan(cell)
    if is_nan or (isinstance(cell, str) and cell.strip() in ("NaN", "nan")):
        raise BadRow(place=place, problem="it is NaN", fix=fix)
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        raise BadRow(place=place, problem="it is empty", fix=fix)
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, int | float):
        return str(cell)
    if not isinstance(cell, str):
        problem = f"it is a {type(cell).__name__}, no text"
        raise BadRow(place=place, problem=problem, fix="Name a column of texts or numbers.")
    return cell.strip()


def optional_text(record: Record, column: str) -> str:
    """What a cell says; empty if there is no such column, or nothing in it. Raises BadRow."""
    cell = record.fields.get(column)
    is_empty = cell is None or (isinstance(cell, str) and not cell.strip())
    return "" if is_empty else cell_text(record, column)


def check_header(cells: Sequence[str], place: str) -> list[str]:
    """Return the names of columns, which are all different. Raises BadRow."""
    names = [cell.strip() for cell in cells]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if "" in names:
        number = names.index("") + 1
        problem = f"column {number} of the header has no name"
        raise BadRow(place=place, problem=problem, fix="Name each column in the first line.")
    if twice is not None:
        problem = f"two columns of the header are named {twice!r}"
        raise BadRow(place=place, problem=problem, fix="Rename one of them.")
    return names
