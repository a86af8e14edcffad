"""Backups of a whole cloud: its database, its state folder, and the blobs that they name.

A backup folder holds any number of snapshots. They share their blobs, which are stored once by
their digest, so a further snapshot costs what is new.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import karez
from karez.core.artifacts import FileEntry
from karez.core.backups import BackupSnapshot, DumpableDatabase
from karez.core.codec import to_text
from karez.core.errors import BrokenArtifact, NotFound
from karez.core.ports import Blobs
from karez.server.backups.copying import copy_file, room_in, save_blob, write_own
from karez.server.backups.folder import BackupFolder, Say, open_folder, reported

SKIPPED = ("*.lock", "cloud.json", "karez.db*", "blobs", "node", "*.partial")
"""Parts of a state folder that no snapshot holds: of running processes, or copied otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A cloud that is backed up; it may run."""

    home: Path
    database: DumpableDatabase | None
    """None: it is backed up by other means, such as PostgreSQL's own."""
    blobs: Blobs | None
    """None: the blob store is backed up by other means."""


def back_up(source: Source, target: Path, now: float, *, keep: int, say: Say) -> BackupSnapshot:
    """Add a snapshot to a backup folder, and then remove all but the newest `keep` (0: none).

    The database comes first: whatever it names at that moment is in the blob store already.

    Raises:
        BadRequest: The target holds something else, or another backup is being made there.
        BrokenArtifact: A blob is not what its digest says, or is gone though it is named.
        StorageFull: No room; the snapshots before stay as they are.
    """
    with open_folder(target) as backup:
        return _add_snapshot(source, backup, now, keep, say)


def _add_snapshot(
    source: Source, backup: BackupFolder, now: float, keep: int, say: Say
) -> BackupSnapshot:
    name = datetime.fromtimestamp(now, tz=UTC).strftime("%Y-%m-%dT%H-%M-%S.%fZ")
    partial = backup.folder_of(f"{name}.partial")
    try:
        with room_in(backup.path):
            partial.mkdir(mode=0o700)
            snapshot = _write_snapshot(source, backup, partial, name, now, say)
            partial.rename(backup.folder_of(name))
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if keep:
        backup.prune(keep)
    return snapshot


def _write_snapshot(
    source: Source, backup: BackupFolder, partial: Path, name: str, now: float, say: Say
) -> BackupSnapshot:
    say("tables", 0, 1)
    database = source.database.dump(partial / "tables") if source.database else None
    say("tables", 1, 1)
    files = tuple(_copy_home(source.home, partial / "home"))
    size = 0
    if source.blobs is not None:
        # of a database that may go back to any moment: all that there are
        named = database.blobs if database else list(source.blobs.digests())
        size = _copy_blobs(source.blobs, source.database, named, backup, say)
    snapshot = BackupSnapshot(
        name=name,
        made_at=now,
        version=karez.__version__,
        database=database,
        files=files,
        has_blobs=source.blobs is not None,
        blob_bytes=size,
    )
    write_own(partial / "manifest.json", to_text(snapshot))
    return snapshot


def _copy_home(home: Path, to: Path) -> Iterator[FileEntry]:
    for path in sorted(_files(home)):
        name = str(path.relative_to(home))
        try:
            digest, size = copy_file(path, to / name)
        except FileNotFoundError:
            continue  # rotated away
        yield FileEntry(path=name, sha256=digest, size_bytes=size)


def _files(home: Path) -> Iterator[Path]:
    for entry in home.iterdir():
        if any(entry.match(pattern) for pattern in SKIPPED):
            continue  # a link is followed: a part of the folder may lie on another disk
        found = entry.rglob("*") if entry.is_dir() else (entry,)
        yield from (path for path in found if path.is_file() and not path.is_symlink())


def _copy_blobs(
    blobs: Blobs,
    database: DumpableDatabase | None,
    named: Sequence[str],
    backup: BackupFolder,
    say: Say,
) -> int:
    """Copy the blobs that the folder lacks; returns the bytes of all of them."""
    size = 0
    for digest in reported("blobs", named, say):
        path = backup.blob(digest)
        if not path.exists():
            try:
                with blobs.open(digest) as file:
                    save_blob(file, path, digest)
            except NotFound as error:
                if database is not None and digest not in database.blobs():
                    continue  # deleted since the database was copied
                problem = "the database names it, and the blob store does not have it"
                raise BrokenArtifact(name=f"blob {digest}", problem=problem) from error
        size += path.stat().st_size
    return size
