"""Measures the memory and storage of processes against their grants.

No control group and no privilege is needed: a process that exceeds its grant at a check is ended,
with the reason. Where there are control groups, the kernel stops what a check comes too late for.
"""

import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import psutil

from karez.core.grants import Grant
from karez.core.units import show_bytes
from karez.drivers.steward.jobs_own_files import paths_below

CHECK_S = 1.0
"""Seconds between two checks."""
OVER_CODE = 137
"""Exit code of a process that was ended for exceeding its grant: as of a killed process."""


def over_limit(grant: Grant, subreapers: Iterable[int], folders: Mapping[Path, int]) -> str:
    """What all below some subreapers use beyond their grant, as text, or empty.

    `folders` say how many processes share what is in each.
    """
    if grant.memory_bytes:
        used = sum(map(memory_of, subreapers))
        if used > grant.memory_bytes:
            return _message("memory", used, grant.memory_bytes)
    if grant.storage_bytes:
        used = sum(storage_of(folder) // sharers for folder, sharers in folders.items())
        if used > grant.storage_bytes:
            return _message("storage", used, grant.storage_bytes)
    return ""


def out_of_memory(grant: Grant) -> str:
    """What is said of a process that the kernel has ended for its memory."""
    return _message("memory", grant.memory_bytes * 3, grant.memory_bytes)


def _message(what: str, used: int, granted: int) -> str:
    return (
        f"took {show_bytes(used)} of {what} and was granted {show_bytes(granted)}; "
        f"ask for {what}={show_bytes(used * 5 // 4).replace(' ', '')}"
    )


def memory_of(subreaper: int) -> int:
    """Bytes of memory that the processes below a subreaper do not share with others."""
    total = 0
    try:
        family = psutil.Process(subreaper).children(recursive=True)
    except (psutil.Error, ValueError):
        return 0
    for process in family:
        try:
            total += int(process.memory_full_info().uss)
        except psutil.Error:
            continue  # it has just ended
    return total


def storage_of(folder: Path) -> int:
    """Bytes on disk of the files below a folder."""
    return sum(_sizes(folder))


def _sizes(folder: Path) -> Iterator[int]:
    for path in paths_below(folder):
        try:
            found = path.lstat()
        except OSError:
            continue  # it has just been removed
        if stat.S_ISREG(found.st_mode):
            yield found.st_blocks * 512
