"""Numbers that all processes of a gateway see: each writes its row, and reads all. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

Cells = memoryview
"""Whole numbers of 64 bits."""
Name = tuple[str, ...]
"""Of rows: what they are of."""
HELD = 5
"""The first cells of a row are what its process holds now: nothing when it starts."""
CELL = 8
"""Bytes of a cell."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one name: that of this process, and those of the others."""

    mine: Cells
    others: tuple[Cells, ...] = ()


OpenRows = Callable[[Name, int], Rows]
"""Opens the rows of a name, each of so many cells."""


def no_cells(cells: int) -> Cells:
    """So many cells, in the memory of this process, that are 0."""
    return memoryview(bytearray(cells * CELL)).cast("q")


def own_rows(name: Name, cells: int) -> Rows:
    """The row of a gateway that has no other process."""
    del name
    return Rows(no_cells(cells))
