"""Arrays: many jobs of one specification that differ by an index. Pure.

The syntax is that of Slurm's `--array`: `0-99%10`, `1,3,5-9`, `0-15:4`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from karez.core.workloads import ENDED, State

MAX_TASKS: Final = 10_000
"""Most jobs of one array."""
MAX_INDEX: Final = 2**31 - 1
_PART: Final = re.compile(r"([0-9]+)(?:-([0-9]+)(?::([0-9]+))?)?")
_LIVELIEST: Final = (
    State.RUNNING,
    State.RECOVERING,
    State.PREEMPTING,
    State.STARTING,
    State.PLACED,
    State.STOPPING,
    State.QUEUED,
    State.HELD,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySpec:
    """What a user asks for with `--array`."""

    indices: tuple[int, ...]
    """Ascending, each once."""
    limit: int | None = None
    """How many jobs of the array may be under way at once; None: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayTask:
    """A job's place in its array; or a whole array, shown as one job."""

    id: str
    """Id of the array."""
    index: int | None = None
    """None: this is the whole array."""
    states: Mapping[State, int] = field(default_factory=dict)
    """Of a whole array: how many of its jobs are in each state."""


@lru_cache(maxsize=64)  # a row of the store is read with it, and an array has many
def parse_array(text: str) -> ArraySpec:
    """Read `0-99`, `1,3,5-9`, `0-15:4`, each with `%LIMIT` behind if need be. Raises ValueError."""
    listed, percent, most = text.partition("%")
    if percent and (not most.isdecimal() or int(most) < 1):
        raise ValueError(f"array {text!r}: behind % stands how many may run at once, such as %10")
    indices = set[int]()
    for part in listed.split(","):
        more = _range_of(part.strip(), text)
        if len(more) <= MAX_TASKS:  # else it is not even written out
            indices |= set(more)
        if max(len(more), len(indices)) > MAX_TASKS:
            raise ValueError(f"array {text!r} has more than {MAX_TASKS:,} jobs; submit several")
    return ArraySpec(indices=tuple(sorted(indices)), limit=int(most) if percent else None)


def _range_of(part: str, text: str) -> range:
    match = _PART.fullmatch(part)
    if match is None:
        raise ValueError(f"array {text!r} should be like 0-99, 1,3,5-9, 0-15:4 or 0-99%10")
    first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
    if last < first or step < 1 or last > MAX_INDEX:
        raise ValueError(f"array {text!r}: {part} counts up from 0 to {MAX_INDEX} at most")
    return range(first, last + 1, step)


def state_of_array(states: Mapping[State, int]) -> State:
    """State of a whole array: that of its liveliest job, or how it ended."""
    for state in (*_LIVELIEST, State.FAILED, State.CANCELLED):
        if states.get(state):
            return state
    return State.SUCCEEDED


def describe_array(states: Mapping[State, int]) -> str:
    """Say how many jobs of an array are in each state, such as `3 running, 97 queued`."""
    ordered = (*_LIVELIEST, State.SUCCEEDED, State.FAILED, State.CANCELLED)
    return ", ".join(f"{states[state]:,} {state}" for state in ordered if states.get(state))


def describe_limit(limit: int) -> str:
    """Why a job of an array is held although nothing else keeps it."""
    return f"of its array, {limit:,} run at once"


def count_ended(states: Mapping[State, int]) -> int:
    """How many jobs of an array have ended."""
    return sum(states.get(state, 0) for state in ENDED)
