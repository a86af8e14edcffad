"""Holds processes to the memory and the storage they were granted.

No cgroup is needed, and no privilege: what is over its limit at a look is ended, with the reason.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from karez.core.grants import Grant
from karez.core.units import show_bytes

LOOK_S = 1.0
"""Seconds between two looks."""
OVER_CODE = 137
"""Exit code of what was ended for taking too much: as of a process that was killed."""


def over_limit(grant: Grant, pid: int, folder: Path) -> str:
    """What a process and its children took beyond their grant, in words; empty if nothing."""
    if grant.memory_bytes:
        used = memory_of(pid)
        if used > grant.memory_bytes:
            return _say("memory", used, grant.memory_bytes)
    if grant.storage_bytes:
        used = storage_of(folder)
        if used > grant.storage_bytes:
            return _say("storage", used, grant.storage_bytes)
    return ""


def _say(what: str, used: int, granted: int) -> str:
    return (
        f"took {show_bytes(used)} of {what} and was granted {show_bytes(granted)}; "
        f"ask for {what}={show_bytes(used * 5 // 4).replace(' ', '')}"
    )


def memory_of(pid: int) -> int:
    """Bytes that a process and its children have to themselves: shared pages are nobody's."""
    total = 0
    try:
        family = [psutil.Process(pid)]
        family += family[0].children(recursive=True)
    except psutil.Error:
        return 0
    for process in family:
        try:
            total += int(process.memory_full_info().uss)
        except psutil.Error:
            continue  # it has just ended
    return total


def storage_of(folder: Path) -> int:
    """Bytes that the files below a folder take on the disk, inputs left out: these are shared."""
    return sum(_sizes(folder, skip="inputs"))


def _sizes(folder: Path | str, skip: str = "") -> Iterator[int]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                if entry.name != skip:
                    yield from _sizes(entry.path)
            elif entry.is_file(follow_symlinks=False):
                yield entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            continue  # it has just been removed
