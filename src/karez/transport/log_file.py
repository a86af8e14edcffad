"""Log files that keep their newest bytes: older ones become a hole, and offsets stay as they were.

A process appends to its log without asking anybody, and readers go on from an offset. A file that
is renamed or cut would break both; a hole, which takes no space, breaks neither.
"""

import ctypes
import os
import stat
from pathlib import Path

from karez.core.processes import LogChunk

FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2  # linux/falloc.h
_BLOCK = 4096
_STAT_BLOCK = 512  # stat(2): the unit of st_blocks


def read_log_file(path: Path, offset: int, limit: int) -> LogChunk:
    """Read up to `limit` bytes from `offset`, or from the first byte behind it that is kept."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return LogChunk(start=offset, data=b"")
    try:
        start = offset if offset >= os.fstat(fd).st_size else os.lseek(fd, offset, os.SEEK_DATA)
        return LogChunk(start=start, data=os.pread(fd, limit, start))
    finally:
        os.close(fd)


def append_log_file(path: Path, chunk: LogChunk) -> None:
    """Write a chunk at its offset; what lies between the end of the file and it is a hole."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        view = memoryview(chunk.data)
        at = chunk.start
        while view:
            written = os.pwrite(fd, view, at)
            view, at = view[written:], at + written
    finally:
        os.close(fd)


def drop_old(path: Path, keep_bytes: int) -> None:
    """Free the space of all but the newest `keep_bytes` of a log, once it takes twice as much."""
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        found = os.fstat(fd)
        takes = found.st_blocks * _STAT_BLOCK
        if stat.S_ISREG(found.st_mode) and takes > 2 * keep_bytes:
            _drop(fd, (found.st_size - keep_bytes) // _BLOCK * _BLOCK)
    finally:
        os.close(fd)


def _drop(fd: int, end: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    mode = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
    if libc.fallocate(fd, mode, ctypes.c_int64(0), ctypes.c_int64(end)) == 0:
        return
    size = os.fstat(fd).st_size  # a file system without holes on demand, such as NFS 4.1
    kept = os.pread(fd, size - end, end)
    os.ftruncate(fd, 0)
    os.pwrite(fd, kept, end)
