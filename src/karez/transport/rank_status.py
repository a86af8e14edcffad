"""The status of a rank in 64 bytes of shared memory, which its node agent (the steward) reads.

Writing costs a microsecond and needs no listener, so a rank can do it several times per step;
reading works even while the rank is stopped.
"""

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from karez.core.processes import Activity

SIZE: Final = 64
_LAYOUT: Final = struct.Struct("<qqqd")  # generation, step, activity, since


@dataclass(frozen=True, slots=True, kw_only=True)
class RankStatus:
    """The content of a status file."""

    generation: int
    step: int
    activity: Activity
    since: float
    """Since when, in CLOCK_MONOTONIC seconds of the host."""


class RankStatusFile:
    """The status file of one rank. One writer; any process may read."""

    def __init__(self, path: Path) -> None:
        """Open the file, or create it. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(fd, SIZE)
            self._map = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)

    def post(self, status: RankStatus) -> None:
        """Write the status."""
        _LAYOUT.pack_into(
            self._map, 0, status.generation, status.step, status.activity, status.since
        )


def read_rank_status(path: Path) -> RankStatus | None:
    """Read a status file; None if there is none, or its content is invalid."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        raw = os.pread(fd, SIZE, 0)
    except OSError:  # it is no file
        return None
    finally:
        os.close(fd)
    if len(raw) < _LAYOUT.size:
        return None
    generation, step, activity, since = _LAYOUT.unpack_from(raw, 0)
    if activity not in Activity.__members__.values():
        return None
    return RankStatus(generation=generation, step=step, activity=Activity(activity), since=since)


def status_path(snapshot: Path) -> Path:
    """Where a rank's status file is: beside its snapshot file."""
    return snapshot.with_suffix(".board")
