"""Reads rows of which one may be unreadable: it is left out, logged once, and harms no other."""

from collections.abc import Iterable
from functools import cache
from typing import TypeVar

import structlog

from karez.core.codec import from_text

T = TypeVar("T")
log = structlog.get_logger()


def read_all(kind: type[T], rows: Iterable[tuple[str, str]]) -> list[T]:
    """The values of (name, JSON text) rows, without those that are not a `kind`."""
    found = (read_one(kind, name, text) for name, text in rows)
    return [value for value in found if value is not None]


def read_one(kind: type[T], name: str, text: str) -> T | None:
    """One value; None if it is not a `kind`."""
    try:
        return from_text(kind, text)
    except ValueError as error:
        _tell(kind.__name__, name, str(error))
        return None


@cache
def _tell(kind: str, name: str, why: str) -> None:
    log.error("row.unreadable", kind=kind, name=name, why=why)
