"""Calls into classes of transformers, of which hundreds raise whatever they like."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
_LONGEST = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """What went wrong, in one line."""

    reason: str


def attempt(work: Callable[[], T]) -> T | Failed:
    """Return what `work` returns, or what it raised."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - any kind is an outcome here
        first = next(iter(str(error).strip().splitlines()), "")
        return Failed(reason=f"{type(error).__name__}: {first}"[:_LONGEST].rstrip(": "))
