"""The rows of a gateway with several processes, in files that all of them map into their memory.

Nobody waits for a lock, and what a process has written is there when it is started anew. Only
where a name is new, its place is found under a lock.
"""

import fcntl
import hashlib
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from karez.serving.rows import CELL, HELD, Cells, Name, Rows, no_cells, own_rows

log = structlog.get_logger()
PART_BYTES = 1 << 20
"""About how much is mapped at once: each part takes a file descriptor."""
_DIGEST = hashlib.sha256().digest_size


class SharedRows:
    """The rows of all names."""

    def __init__(self, folder: Path, *, process: int, processes: int) -> None:
        """Share a folder as one of so many processes, the first of which is 0. Raises OSError."""
        self._folder, self._process, self._processes = folder, process, processes
        self._tables: dict[int, _Table] = {}
        folder.mkdir(mode=0o700, exist_ok=True)
        for file in folder.glob("*.names"):
            self._table(int(file.stem)).forget_held()

    def open(self, name: Name, cells: int) -> Rows:
        """Open the rows of a name; where there is no room for them, the row of this process."""
        try:
            return self._table(cells).open(name)
        except OSError as error:  # such as a full disk
            log.error("gateway.rows-not-shared", name=name, why=str(error))
            return own_rows(name, cells)

    def _table(self, cells: int) -> "_Table":
        table = self._tables.get(cells)
        if table is None:
            table = self._tables[cells] = _Table(
                self._folder / str(cells), cells, self._process, self._processes
            )
        return table


class _Table:
    """All rows with so many cells: a file of names, and one of their rows in the same order."""

    def __init__(self, file: Path, cells: int, process: int, processes: int) -> None:
        self._names, self._rows = file.with_suffix(".names"), file.with_suffix(".rows")
        self._cells, self._process, self._processes = cells, process, processes
        self._of_name = cells * CELL * processes
        self._per_part = max(1, PART_BYTES // self._of_name)
        """Names whose rows are mapped together."""
        self._part_bytes = -(-self._per_part * self._of_name // mmap.PAGESIZE) * mmap.PAGESIZE
        self._places: dict[bytes, int] = {}
        self._parts: dict[int, Cells] = {}

    def open(self, name: Name) -> Rows:
        """Open the rows of a name. Raises OSError."""
        digest = hashlib.sha256("\0".join(name).encode()).digest()
        place = self._places.get(digest)
        if place is None:
            with self._locked() as descriptor:
                self._read(descriptor)
                place = self._places.get(digest, len(self._places))
                if digest not in self._places:
                    self._at(place)  # before anybody hears of it
                    os.pwrite(descriptor, digest, place * _DIGEST)
                    self._places[digest] = place
        return self._at(place)

    def forget_held(self) -> None:
        """Forget what this process held. Raises OSError."""
        with self._locked() as descriptor:
            self._read(descriptor)
        for place in self._places.values():
            self._at(place).mine[:HELD] = no_cells(HELD)

    def _read(self, descriptor: int) -> None:
        known = len(self._places)
        whole = os.fstat(descriptor).st_size // _DIGEST  # the last may have been cut by a kill
        data = os.pread(descriptor, (whole - known) * _DIGEST, known * _DIGEST)
        for at in range(whole - known):
            self._places[data[at * _DIGEST : (at + 1) * _DIGEST]] = known + at

    def _at(self, place: int) -> Rows:
        part, number = divmod(place, self._per_part)
        whole = self._parts.get(part) or self._map(part)
        size = self._cells
        first = number * self._processes * size
        rows = [whole[first + at * size : first + (at + 1) * size] for at in range(self._processes)]
        return Rows(rows.pop(self._process), tuple(rows))

    def _map(self, part: int) -> Cells:
        descriptor = _opened(self._rows)
        try:
            # a cell without a place on the disk would end the process that writes it
            os.posix_fallocate(descriptor, 0, (part + 1) * self._part_bytes)
            mapped = mmap.mmap(descriptor, self._part_bytes, offset=part * self._part_bytes)
        finally:
            os.close(descriptor)
        whole = self._parts[part] = memoryview(mapped).cast("q")
        return whole

    @contextmanager
    def _locked(self) -> Iterator[int]:
        descriptor = _opened(self._names)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # it ends with the descriptor
            yield descriptor
        finally:
            os.close(descriptor)


def _opened(file: Path) -> int:
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
