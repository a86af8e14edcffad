"""Makes a cloud of a snapshot."""

import fcntl
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from karez.core.backups import BackupSnapshot, DumpableDatabase, Restored
from karez.core.errors import BadRequest, BrokenArtifact, NotFound
from karez.core.ports import Blobs
from karez.server.backups.copying import copy_file, room_in, verify
from karez.server.backups.folder import BackupFolder, Say, alone_in, reported
from karez.server.home import RESTORING


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a cloud is restored."""

    home: Path
    """A folder that is absent or empty."""
    open_database: Callable[[Path], DumpableDatabase]
    """Opens the database of a cloud whose state folder is, for now, at this path."""
    open_blobs: Callable[[Path], Blobs]
    """Opens its blob store."""


def restore(backup: BackupFolder, snapshot: BackupSnapshot, target: Target, say: Say) -> Restored:
    """Make a cloud of a snapshot, in an empty state folder and an empty database.

    Nothing of it stays if it fails.

    Raises:
        BadRequest: The folder or the database is not empty.
        BrokenArtifact: A file of the backup is not what it was when it was written.
        StartFailed: The snapshot is of a newer karez, or the database does not answer.
        StorageFull: No room.
    """
    with alone_in(backup.path, fcntl.LOCK_SH):
        return _restore(backup, snapshot, target, say)


def _restore(backup: BackupFolder, snapshot: BackupSnapshot, target: Target, say: Say) -> Restored:
    present = list(target.home.iterdir()) if target.home.exists() else []
    if present == [target.home / RESTORING]:
        shutil.rmtree(target.home / RESTORING)  # of a restore that was killed before its end
    elif present:
        problem = f"the state folder {target.home} is not empty"
        raise BadRequest(problem=problem, fix="Name an empty one with --home.")
    folder = backup.folder_of(snapshot.name)
    verify(folder / "home", snapshot.files)
    if snapshot.database is not None:
        verify(folder / "tables", [table.file for table in snapshot.database.tables])
    is_new = not target.home.exists()
    partial = target.home / RESTORING
    is_whole = False
    try:
        with room_in(target.home):
            partial.mkdir(mode=0o700, parents=True)
            target.home.chmod(0o700)
            for entry in snapshot.files:
                copy_file(folder / "home" / entry.path, partial / entry.path)
            restored = _fill(backup, snapshot, target, partial, say)
            # the database last: without it a cloud does not start on what is half restored
            for part in sorted(partial.iterdir(), key=lambda one: one.name.startswith("karez.db")):
                part.rename(target.home / part.name)
            is_whole = True
    finally:
        shutil.rmtree(target.home if is_new and not is_whole else partial, ignore_errors=True)
    return restored


def _fill(
    backup: BackupFolder, snapshot: BackupSnapshot, target: Target, home: Path, say: Say
) -> Restored:
    """Fill the blob store and then, in one transaction, the database."""
    database = target.open_database(home)
    try:
        _check_database(database, snapshot)
        named = snapshot.database.blobs if snapshot.database else database.blobs()
        missing = _put_blobs(backup, named, target.open_blobs(home), say)
        if snapshot.database is not None:
            say("tables", 0, 1)
            database.load(backup.folder_of(snapshot.name) / "tables", snapshot.database)
            say("tables", 1, 1)
    finally:
        database.close()
    return Restored(
        home=str(target.home),
        snapshot=snapshot.name,
        made_at=snapshot.made_at,
        rows=sum(table.rows for table in snapshot.database.tables) if snapshot.database else 0,
        blobs=len(named) - len(missing),
        missing_blobs=missing,
    )


def _check_database(database: DumpableDatabase, snapshot: BackupSnapshot) -> None:
    is_empty = not database.revision()
    if snapshot.database is not None and not is_empty:
        problem = "the database has tables already"
        raise BadRequest(problem=problem, fix="Name an empty one with --database.")
    if snapshot.database is None and is_empty:
        problem = "the snapshot holds no database, and the one of the new cloud is empty"
        fix = "Restore the database first by what backed it up, and name it with --database."
        raise BadRequest(problem=problem, fix=fix)


def _put_blobs(
    backup: BackupFolder, named: Sequence[str], blobs: Blobs, say: Say
) -> tuple[str, ...]:
    """Put the named blobs into a blob store; returns those that neither has whole."""
    kept, missing = backup.blobs, []
    for digest in reported("blobs", named, say):
        if blobs.has(digest):
            continue
        try:
            with kept.open(digest) as file:
                blobs.put(file, expect=digest)
        except (NotFound, BrokenArtifact):
            missing.append(digest)
    return tuple(missing)
