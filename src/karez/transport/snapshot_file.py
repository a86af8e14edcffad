"""The snapshot file of a rank in shared memory, which ranks write and replica servers read.

There is one file per rank with two slots, so that the previous step survives while the newest is
being written. A slot counts only once its step number is published, which happens last.
"""

import mmap
import os
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import xxhash

_MAGIC: Final = 0x6B617265_7A303032
_HEAD: Final = 4096
_SLOT: Final = struct.Struct("<qqQq")  # step, length, XXH3, generation
_TOP: Final = struct.Struct("<Qqq")  # magic, capacity, replicated step


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One snapshot as it was read."""

    step: int
    generation: int
    body: bytes


class SnapshotFile:
    """The two newest snapshots of one rank. One writer; any process may read at any time."""

    def __init__(self, path: Path, *, is_own: bool = True) -> None:
        """Open an existing file.

        Args:
            path: The file.
            is_own: Whether nobody else may cut it or put a link in its place. Else it is read
                without being mapped: a mapped file that is cut ends the process.

        Raises:
            OSError: The file does not exist, or is a link that may not be followed.
            ValueError: The file is not a snapshot file.
        """
        self.path = path
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | (0 if is_own else os.O_NOFOLLOW)
        fd = os.open(path, flags)
        found = os.fstat(fd)
        size = found.st_size if is_own else min(found.st_size, found.st_blocks * 512)  # no holes
        if not stat.S_ISREG(found.st_mode) or size < _HEAD:
            os.close(fd)
            raise ValueError(f"{path} is too short for a snapshot file, or no file")
        self._bytes: _Mapped | _Unmapped = _Mapped(fd, size) if is_own else _Unmapped(fd)
        try:
            magic, self.capacity, _ = _TOP.unpack(self._bytes.read(0, _TOP.size))
            if magic != _MAGIC or not 0 <= self.capacity <= (size - _HEAD) // 2:
                raise ValueError(f"{path} is not a snapshot file")
        except (OSError, ValueError):
            self.close()
            raise

    @classmethod
    def create(cls, path: Path, capacity: int) -> "SnapshotFile":
        """Create a file with room for two snapshots of `capacity` bytes.

        Raises:
            OSError: No room (ENOSPC); nothing is left behind.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        try:
            with fresh.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, _HEAD + 2 * capacity)
                file.write(_TOP.pack(_MAGIC, capacity, -1))
                for slot in range(2):
                    file.seek(64 + slot * 64)
                    file.write(_SLOT.pack(-1, 0, 0, 0))
            fresh.replace(path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        return cls(path)

    def write(self, step: int, generation: int, parts: Sequence[bytes | memoryview]) -> None:
        """Write a snapshot into the older slot. The parts are joined; they must fit `capacity`."""
        held = [self._step_in(slot) for slot in range(2)]
        slot = held.index(step) if step in held else held.index(min(held))
        head = 64 + slot * 64
        self._bytes.write(head, _SLOT.pack(-1, 0, 0, 0))
        at = start = _HEAD + slot * self.capacity
        checksum = xxhash.xxh3_64()
        for part in parts:
            self._bytes.write(at, part)
            checksum.update(part)
            at += len(part)
        self._bytes.write(head, _SLOT.pack(-1, at - start, checksum.intdigest(), generation))
        self._bytes.write(head, struct.pack("<q", step))  # published last

    def steps(self) -> tuple[int, ...]:
        """Return the steps that can be read, oldest first."""
        return tuple(sorted(step for slot in range(2) if (step := self._step_in(slot)) >= 0))

    def generation(self, step: int) -> int:
        """Return the generation in which a step was written; 0 if it is not there."""
        at_step, _, _, generation = self._slot(self._slot_of(step))
        return int(generation) if at_step == step else 0

    def read(self, step: int, *, only: int = 0) -> Snapshot | None:
        """Read a snapshot; None if it is not there or its checksum is wrong.

        With `only`, read that many first bytes, without the checksum, which is over all bytes.
        """
        slot = self._slot_of(step)
        at_step, length, checksum, generation = self._slot(slot)
        start = _HEAD + slot * self.capacity
        if at_step != step or not 0 <= length <= self.capacity:
            return None
        body = self._bytes.read(start, min(length, only or length))
        again = self._slot(slot)
        if again[0] != step or (not only and xxhash.xxh3_64_intdigest(body) != checksum):
            return None
        return Snapshot(step=step, generation=generation, body=body)

    def drop_newer_than(self, step: int) -> None:
        """Drop snapshots after `step`: their steps were rolled back."""
        for slot in range(2):
            if self._step_in(slot) > step:
                self._bytes.write(64 + slot * 64, _SLOT.pack(-1, 0, 0, 0))

    def _step_in(self, slot: int) -> int:
        return self._slot(slot)[0]

    def _slot(self, slot: int) -> tuple[int, int, int, int]:
        """(step, length, checksum, generation) of a slot."""
        step, length, checksum, generation = _SLOT.unpack(
            self._bytes.read(64 + slot * 64, _SLOT.size)
        )
        return step, length, checksum, generation

    def _slot_of(self, step: int) -> int:
        """The slot that has a step; any slot if none has."""
        return int(self._step_in(1) == step)

    @property
    def replicated(self) -> int:
        """The newest step that the peers hold too; -1: none."""
        return int(_TOP.unpack(self._bytes.read(0, _TOP.size))[2])

    @replicated.setter
    def replicated(self, step: int) -> None:
        self._bytes.write(16, struct.pack("<q", step))

    def close(self) -> None:
        """Close the file, which stays."""
        self._bytes.close()


class _Mapped:
    """A file in this process's memory: for whoever reads and writes it all the time."""

    def __init__(self, fd: int, size: int) -> None:
        self._map = mmap.mmap(fd, size)
        os.close(fd)

    def read(self, at: int, size: int) -> bytes:
        """Read `size` bytes. Raises ValueError: there are fewer."""
        data = self._map[at : at + size]
        if len(data) != size:
            raise ValueError("it is too short")
        return data

    def write(self, at: int, data: bytes | memoryview) -> None:
        self._map[at : at + len(data)] = data

    def close(self) -> None:
        self._map.close()


class _Unmapped:
    """A file that somebody else may cut at any moment."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, at: int, size: int) -> bytes:
        """Read `size` bytes. Raises ValueError: there are fewer."""
        pieces = []
        while size > 0:
            piece = os.pread(self._fd, size, at)  # at most 2 GiB at once
            if not piece:
                raise ValueError("it is too short")
            pieces.append(piece)
            at, size = at + len(piece), size - len(piece)
        return b"".join(pieces)

    def write(self, at: int, data: bytes | memoryview) -> None:
        os.pwrite(self._fd, data, at)

    def close(self) -> None:
        os.close(self._fd)


def snapshot_path(memory: Path, job: str, rank: int) -> Path:
    """Where a rank's snapshot file is, below its node's folder in shared memory."""
    return memory / job / f"{rank}.slots"
