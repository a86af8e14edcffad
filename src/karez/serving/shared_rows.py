"""The rows of a gateway with several processes, in files that all of them map into their memory.

Nobody waits for a lock, and what a process has written is there when it is started anew.
"""

import hashlib
import mmap
import os
from pathlib import Path

import structlog

from karez.serving.rows import CELL, HELD, Name, Rows, no_cells, own_rows

log = structlog.get_logger()


class SharedRows:
    """The rows of all names, each name a file that the processes map into their memory."""

    def __init__(self, folder: Path, *, process: int, processes: int) -> None:
        """Share a folder as one of so many processes, the first of which is 0. Raises OSError."""
        self._folder, self._process, self._processes = folder, process, processes
        folder.mkdir(mode=0o700, exist_ok=True)
        for file in folder.iterdir():
            cells = file.stat().st_size // CELL // processes
            if cells >= HELD:
                rows = self._map(file, cells)
                rows.mine[:HELD] = no_cells(HELD)

    def open(self, name: Name, cells: int) -> Rows:
        """Open the rows of a name; where there is no room for them, the row of this process."""
        file = self._folder / hashlib.sha256("\0".join(name).encode()).hexdigest()
        try:
            return self._map(file, cells)
        except OSError as error:  # such as a full disk
            log.error("gateway.rows-not-shared", name=name, why=str(error))
            return own_rows(name, cells)

    def _map(self, file: Path, cells: int) -> Rows:
        size = cells * CELL * self._processes
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            # a cell without a place on the disk would end the process that writes it
            os.posix_fallocate(descriptor, 0, size)
            whole = memoryview(mmap.mmap(descriptor, size)).cast("q")
        finally:
            os.close(descriptor)
        rows = [whole[at * cells : (at + 1) * cells] for at in range(self._processes)]
        return Rows(rows.pop(self._process), tuple(rows))
