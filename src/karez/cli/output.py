"""Print answers: a table for people, JSON for machines."""

import datetime
import json
import sys
from collections.abc import Sequence
from typing import Any

import typer

from karez.cli.terminal import say
from karez.core.codec import to_json
from karez.core.names import printable


def json_out(value: object) -> None:
    """Print a value, or a list of values, as JSON."""
    plain: Any = [_plain(item) for item in value] if isinstance(value, list) else _plain(value)
    typer.echo(json.dumps(plain, indent=2))


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """Print rows under column heads, or the sentence `empty` if there are no rows."""
    if not rows:
        say(empty)
        return
    from rich.console import Console  # noqa: PLC0415 - only where a table is drawn
    from rich.table import Table  # noqa: PLC0415 - only where a table is drawn

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        grid.add_column(head, overflow="fold")
    for row in rows:
        grid.add_row(*(_lines(str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False, markup=False, emoji=False).print(grid)


def _lines(cell: str) -> str:
    """The cell, with its line breaks, and without what a terminal would take for an order."""
    return "\n".join(printable(line) for line in cell.split("\n"))


def clock(at: float | None) -> str:
    """Format UTC epoch seconds in local time."""
    if at is None:
        return ""
    moment = datetime.datetime.fromtimestamp(at, tz=datetime.UTC).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _plain(item: object) -> Any:
    return item if isinstance(item, str | int | float | dict | None) else to_json(item)
