"""The folder that snapshots are kept in."""

import fcntl
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from karez.core.backups import FORMAT, BackupSnapshot
from karez.core.codec import from_text
from karez.core.errors import BadRequest, BrokenArtifact, NotFound
from karez.core.ports import Blobs
from karez.server.backups.copying import write_own

MARK = "karez-backup"
"""File that marks a backup folder."""

Say = Callable[[str, int, int], None]
"""(what is copied, how many are done, how many there are)."""


@dataclass(frozen=True, slots=True)
class BackupFolder:
    """A folder of snapshots."""

    path: Path
    open_blobs: Callable[[Path], Blobs]
    """Opens a blob store in a folder."""

    @property
    def blobs(self) -> Blobs:
        """The blobs of all snapshots."""
        return self.open_blobs(self.path / "blobs")

    @property
    def snapshots(self) -> Sequence[BackupSnapshot]:
        """All whole snapshots, oldest first. Raises BadRequest if this is no backup folder."""
        if not (self.path / MARK).exists():
            problem = f"{self.path} is not a backup folder"
            raise BadRequest(problem=problem, fix="`karez backup FOLDER` makes one.")
        files = (self.path / "snapshots").glob("*/manifest.json")
        return sorted(map(_read_manifest, files), key=lambda snapshot: snapshot.made_at)

    def find(self, name: str) -> BackupSnapshot:
        """A snapshot by its name; without one, the newest. Raises NotFound, BadRequest."""
        manifest = self.folder_of(Path(name).name) / "manifest.json"
        if name and manifest.exists():
            return _read_manifest(manifest)  # another one may be damaged
        found = self.snapshots
        if not found:
            problem = f"{self.path} has no snapshot yet"
            raise BadRequest(problem=problem, fix="`karez backup FOLDER` makes one.")
        named = [one for one in found if one.name == name] if name else found[-1:]
        if not named:
            raise NotFound(noun="snapshot", name=name)
        return named[0]

    def folder_of(self, snapshot: str) -> Path:
        """The folder of a snapshot."""
        return self.path / "snapshots" / snapshot

    def prune(self, keep: int, made: BackupSnapshot) -> None:
        """Remove all but the newest snapshots, and the blobs that none of these names.

        The one that was just made stays, whatever the clock said before.
        """
        others = [one for one in self.snapshots if one.name != made.name]
        kept = [*others[len(others) - keep + 1 :], made]
        for old in others[: len(others) - keep + 1]:
            shutil.rmtree(self.folder_of(old.name))
        dumps = [one.database for one in kept]
        named = {digest for dump in dumps if dump for digest in dump.blobs}
        if None in dumps:
            return  # nobody here knows what a database that is kept elsewhere names
        blobs = self.blobs
        for digest in blobs.digests():
            path = None if digest in named else blobs.local(digest)
            if path is not None:
                path.unlink()


@contextmanager
def writing(folder: BackupFolder, cloud: str) -> Iterator[None]:
    """Write into the backup folder of a cloud alone; make it, if there is none.

    Raises:
        BadRequest: It holds something else, cannot be written, or is being written.
    """
    path = folder.path
    if path.exists() and not (path / MARK).exists() and any(path.iterdir()):
        problem = f"{path} holds something that is not a backup"
        raise BadRequest(problem=problem, fix="Name an empty folder, or one of `karez backup`.")
    try:
        (path / "snapshots").mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        if not (path / MARK).exists():
            write_own(path / MARK, f"{FORMAT} {cloud}\n")
    except OSError as error:
        problem = f"cannot write into {path}: {error.strerror}"
        raise BadRequest(problem=problem, fix="Name a folder that you may write.") from error
    if (path / MARK).read_text().split() != [str(FORMAT), cloud]:
        problem = f"{path} holds the backups of another cloud"
        raise BadRequest(problem=problem, fix="Name another folder: each cloud has its own.")
    with alone_in(path, fcntl.LOCK_EX):
        for left in (path / "snapshots").glob("*.partial"):
            shutil.rmtree(left, ignore_errors=True)  # of a backup that was killed
        yield


@contextmanager
def alone_in(path: Path, kind: int) -> Iterator[None]:
    """Hold a lock of this kind on a backup folder. Raises BadRequest if somebody else has it."""
    with (path / MARK).open("r") as mark:
        try:
            fcntl.flock(mark, kind | fcntl.LOCK_NB)
        except OSError as error:
            problem = f"{path} is in use, or its file system knows no locks: {error.strerror}"
            fix = "Wait until the other backup or restore is done, or name another folder."
            raise BadRequest(problem=problem, fix=fix) from error
        yield


def reported(what: str, items: Sequence[str], say: Say) -> Iterator[str]:
    """Go through items, and tell of each."""
    for number, item in enumerate(items):
        say(what, number, len(items))
        yield item
    say(what, len(items), len(items))


def _read_manifest(file: Path) -> BackupSnapshot:
    try:
        snapshot = from_text(BackupSnapshot, file.read_text())
    except ValueError as error:
        raise BrokenArtifact(name=str(file), problem=f"it cannot be read: {error}") from error
    if snapshot.name != file.parent.name:
        raise BrokenArtifact(name=str(file), problem=f"it is the one of {snapshot.name}")
    if snapshot.format != FORMAT:
        problem = f"it has the format {snapshot.format}, of karez {snapshot.version}"
        raise BrokenArtifact(name=str(file), problem=problem)
    return snapshot
