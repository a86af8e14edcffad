"""Backups of a whole cloud: its database, its state folder, and the blobs that they name.

A backup folder holds any number of snapshots. They share their blobs, which are stored once by
their digest, so a further snapshot costs what is new.
"""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import karez
from karez.core.artifacts import FileEntry
from karez.core.backups import BackupSnapshot, DumpableDatabase
from karez.core.codec import to_text
from karez.core.errors import BadRequest, BrokenArtifact, NotFound
from karez.core.ports import Blobs
from karez.server.backups.copying import copy_file, room_in, write_own
from karez.server.backups.folder import BackupFolder, Say, reported, writing

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


def back_up(
    source: Source, backup: BackupFolder, now: float, *, keep: int, say: Say
) -> BackupSnapshot:
    """Add a snapshot to a backup folder, and then remove all but the newest `keep` (0: none).

    The database comes first: whatever it names at that moment is in the blob store already.

    Raises:
        BadRequest: The folder holds something else, lies in the state folder, or is in use; or the
            database holds no cloud.
        StorageFull: No room; the snapshots before stay as they are.
    """
    home = source.home.resolve()
    if backup.path.resolve().is_relative_to(home):
        problem = f"{backup.path} is inside the state folder, and would be part of the next backup"
        raise BadRequest(problem=problem, fix="Name a folder elsewhere, on another disk.")
    with writing(backup, identity(home)):
        return _add_snapshot(source, backup, now, keep, say)


def identity(home: Path) -> str:
    """A name for a cloud that tells nothing of its secrets: a digest of its own secret."""
    return hashlib.sha256(b"karez-backup" + (home / "pepper").read_bytes()).hexdigest()[:16]


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
        backup.prune(keep, snapshot)
    return snapshot


def _write_snapshot(
    source: Source, backup: BackupFolder, partial: Path, name: str, now: float, say: Say
) -> BackupSnapshot:
    say("tables", 0, 1)
    database = source.database.dump(partial / "tables") if source.database else None
    say("tables", 1, 1)
    files = tuple(_copy_home(source.home, partial / "home"))
    size, missing = 0, tuple[str, ...]()
    if source.blobs is not None:
        # of a database that may go back to any moment: all that there are
        named = database.blobs if database else list(source.blobs.digests())
        size, missing = _copy_blobs(source.blobs, source.database, named, backup, say)
    snapshot = BackupSnapshot(
        name=name,
        made_at=now,
        version=karez.__version__,
        database=database,
        files=files,
        has_blobs=source.blobs is not None,
        blob_bytes=size,
        missing_blobs=missing,
    )
    write_own(partial / "manifest.json", to_text(snapshot))
    return snapshot


def _copy_home(home: Path, to: Path) -> Iterator[FileEntry]:
    for path in sorted(_files(home)):
        name = str(path.relative_to(home))
        try:
            digest, size = copy_file(path, to / name)
        except FileNotFoundError:
            if path.exists():
                raise
            continue  # rotated away
        yield FileEntry(path=name, sha256=digest, size_bytes=size)


def _files(home: Path) -> Iterator[Path]:
    """What belongs to the cloud. Links at the top are followed: they lead to other disks."""
    for entry in home.iterdir():
        if any(entry.match(pattern) for pattern in SKIPPED):
            continue
        if entry.is_dir():
            yield from (path for path in entry.rglob("*") if path.is_file())
        elif entry.is_file():
            yield entry


def _copy_blobs(
    blobs: Blobs,
    database: DumpableDatabase | None,
    named: Sequence[str],
    backup: BackupFolder,
    say: Say,
) -> tuple[int, tuple[str, ...]]:
    """Copy the blobs that the folder lacks; returns the bytes of all, and those that are lost."""
    kept = backup.blobs
    size, missing = 0, []
    for digest in reported("blobs", named, say):
        try:
            if not kept.has(digest):
                with blobs.open(digest) as file:
                    kept.put(file, expect=digest)
        except (NotFound, BrokenArtifact):
            if database is None or digest in database.blobs():  # else it was deleted meanwhile
                missing.append(digest)
            continue
        path = kept.local(digest)
        size += 0 if path is None else path.stat().st_size
    return size, tuple(missing)
