"""Where a rank writes what it is doing, for its node's steward to read: 64 bytes in shared memory.

Writing costs a microsecond and needs nobody to listen, so a rank can do it at every turn; reading
works even while the rank is stopped.
"""

import mmap
import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

SIZE: Final = 64
_LAYOUT: Final = struct.Struct("<qqqd")  # generation, step, doing, since (CLOCK_MONOTONIC)


class Activity(IntEnum):
    """What a rank is at."""

    QUIESCED = 0
    """It has no group and waits for the foreman's word."""
    LOADING = 1
    """It waits for its batch."""
    COMPUTING = 2
    """It runs the user's code."""
    COLLECTIVE = 3
    """It is in a collective, or waits for its peer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankStatus:
    """What a board says."""

    generation: int
    step: int
    activity: Activity
    since: float
    """CLOCK_MONOTONIC seconds of the host."""


class RankStatusFile:
    """One rank's board. One writer; anyone may read."""

    def __init__(self, path: Path) -> None:
        """Open it, or make it. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(fd, SIZE)
            self._map = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)

    def post(self, posted: RankStatus) -> None:
        """Say what is being done."""
        _LAYOUT.pack_into(
            self._map, 0, posted.generation, posted.step, posted.activity, posted.since
        )


def read_rank_status(path: Path) -> RankStatus | None:
    """What a board says; None if there is none."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    if len(raw) < _LAYOUT.size:
        return None
    generation, step, doing, since = _LAYOUT.unpack_from(raw, 0)
    if doing not in Activity.__members__.values():
        return None
    return RankStatus(generation=generation, step=step, activity=Activity(doing), since=since)
