"""Describe local files as the files of an artifact."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from karez.core.artifacts import FileEntry

_IGNORED = {".git", "__pycache__", ".venv", "node_modules", ".mypy_cache", ".pytest_cache"}


def local_files(path: Path) -> Iterator[tuple[FileEntry, Path]]:
    """Yield the files of a folder, or one file, with digests. Caches and .git are left out."""
    if path.is_file():
        yield _entry(path, path.name), path
        return
    for file in sorted(path.rglob("*")):
        parts = set(file.relative_to(path).parts)
        if file.is_file() and not parts & _IGNORED:
            yield _entry(file, str(file.relative_to(path))), file


def all_local_files(path: Path) -> Sequence[tuple[FileEntry, Path]]:
    """List what `local_files` yields."""
    return list(local_files(path))


def _entry(file: Path, name: str) -> FileEntry:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileEntry(path=name, sha256=digest, size_bytes=file.stat().st_size)
