"""The snapshot file of a rank in shared memory, which ranks write and replica servers read.

There is one file per rank with two slots, so that the previous step survives while the newest is
being written. A slot counts only once its step number is published, which happens last.
"""

import mmap
import os
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

    def __init__(self, path: Path) -> None:
        """Open an existing file.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: The file is not a snapshot file.
        """
        self.path = path
        with path.open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _HEAD:
                raise ValueError(f"{path} is too short for a snapshot file")
            self._map = mmap.mmap(file.fileno(), size)
        magic, self.capacity, _ = _TOP.unpack_from(self._map, 0)
        if magic != _MAGIC or size < _HEAD + 2 * self.capacity:
            self._map.close()
            raise ValueError(f"{path} is not a snapshot file")

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
        _SLOT.pack_into(self._map, head, -1, 0, 0, 0)
        at = start = _HEAD + slot * self.capacity
        checksum = xxhash.xxh3_64()
        for part in parts:
            self._map[at : at + len(part)] = part
            checksum.update(part)
            at += len(part)
        _SLOT.pack_into(self._map, head, -1, at - start, checksum.intdigest(), generation)
        struct.pack_into("<q", self._map, head, step)  # published last

    def steps(self) -> tuple[int, ...]:
        """Return the steps that can be read, oldest first."""
        return tuple(sorted(step for slot in range(2) if (step := self._step_in(slot)) >= 0))

    def generation(self, step: int) -> int:
        """Return the generation in which a step was written; 0 if it is not there."""
        head = 64 + self._slot_of(step) * 64
        at_step, _, _, generation = _SLOT.unpack_from(self._map, head)
        return int(generation) if at_step == step else 0

    def read(self, step: int, *, only: int = 0) -> Snapshot | None:
        """Read a snapshot; None if it is not there or its checksum is wrong.

        With `only`, read that many first bytes, without the checksum, which is over all bytes.
        """
        slot = self._slot_of(step)
        head = 64 + slot * 64
        at_step, length, checksum, generation = _SLOT.unpack_from(self._map, head)
        start = _HEAD + slot * self.capacity
        if at_step != step or not 0 <= length <= self.capacity:
            return None
        body = self._map[start : start + min(length, only or length)]
        again = _SLOT.unpack_from(self._map, head)
        if again[0] != step or (not only and xxhash.xxh3_64_intdigest(body) != checksum):
            return None
        return Snapshot(step=step, generation=generation, body=body)

    def drop_newer_than(self, step: int) -> None:
        """Drop snapshots after `step`: their steps were rolled back."""
        for slot in range(2):
            if self._step_in(slot) > step:
                _SLOT.pack_into(self._map, 64 + slot * 64, -1, 0, 0, 0)

    def _step_in(self, slot: int) -> int:
        return int(_SLOT.unpack_from(self._map, 64 + slot * 64)[0])

    def _slot_of(self, step: int) -> int:
        """The slot that has a step; any slot if none has."""
        return int(self._step_in(1) == step)

    @property
    def replicated(self) -> int:
        """The newest step that the peers hold too; -1: none."""
        return int(_TOP.unpack_from(self._map, 0)[2])

    @replicated.setter
    def replicated(self, step: int) -> None:
        struct.pack_into("<q", self._map, 16, step)

    def close(self) -> None:
        """Unmap the file, which stays."""
        self._map.close()


def snapshot_path(memory: Path, job: str, rank: int) -> Path:
    """Where a rank's snapshot file is, below its node's folder in shared memory."""
    return memory / job / f"{rank}.slots"
