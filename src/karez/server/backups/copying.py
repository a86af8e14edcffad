"""Copies of files with their digests, and errors of disks as users meet them."""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from karez.core.artifacts import FileEntry
from karez.core.errors import BrokenArtifact, StorageFull

_CHUNK = 1 << 20


def copy_file(source: Path, target: Path) -> tuple[str, int]:
    """Copy a file for its owner alone; returns the digest and the size in bytes of the copy."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    seen, size = hashlib.sha256(), 0
    with source.open("rb") as file, target.open("wb") as copy:
        target.chmod(source.stat().st_mode & 0o700)
        while chunk := file.read(_CHUNK):
            seen.update(chunk)
            size += copy.write(chunk)
        _sync(copy)
    return seen.hexdigest(), size


def write_own(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    path.touch(mode=0o600)
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        _sync(file)


def _sync(file: IO[bytes] | IO[str]) -> None:
    """Have a power cut leave the file whole."""
    file.flush()
    os.fsync(file.fileno())


def verify(folder: Path, entries: Iterable[FileEntry]) -> None:
    """Check files against their digests. Raises BrokenArtifact."""
    for entry in entries:
        path = folder / entry.path
        if not path.exists():
            raise BrokenArtifact(name=str(path), problem="it is missing from the backup")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                raise BrokenArtifact(name=str(path), problem="it is not what the backup wrote")


@contextmanager
def room_in(path: Path) -> Iterator[None]:
    """Turn the error of a full disk into StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(path=str(path)) from error
        raise
