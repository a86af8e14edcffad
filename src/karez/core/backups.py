"""Backups of a cloud: what a snapshot holds, and the protocol of a database that can be dumped."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from karez.core.artifacts import FileEntry

FORMAT = 1
"""Version of the layout of a backup folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDump:
    """The rows of one table, as JSON lines in one file."""

    name: str
    rows: int
    file: FileEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseDump:
    """A consistent copy of a whole database at one moment."""

    revision: str
    """Revision of the tables, as the migrations call it."""
    tables: tuple[TableDump, ...]
    blobs: tuple[str, ...]
    """Digests of all blobs that rows name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobCheckRequest:
    """What `karez doctor --deep` asks for."""

    repair: bool = False
    backup: str = ""
    """Backup folder that damaged blobs are copied from; empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedBlob:
    """A blob whose bytes are not those that were stored, or are gone."""

    digest: str
    is_lost: bool
    is_repaired: bool
    artifacts: tuple[str, ...]
    """The artifacts with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobCheck:
    """The result of re-hashing all blobs."""

    blobs: int
    damaged: tuple[DamagedBlob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupSnapshot:
    """The manifest of one snapshot in a backup folder."""

    name: str
    made_at: float
    """UTC epoch seconds."""
    version: str
    """Version of karez that made it."""
    database: DatabaseDump | None
    """None: the database is backed up by other means."""
    files: tuple[FileEntry, ...]
    """Files of the state folder, by their path in it."""
    has_blobs: bool = True
    blob_bytes: int = 0
    missing_blobs: tuple[str, ...] = ()
    """Blobs that rows name and that the blob store has not, or has damaged."""
    format: int = FORMAT


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restore has put where."""

    home: str
    snapshot: str
    made_at: float
    rows: int
    blobs: int
    missing_blobs: tuple[str, ...] = ()
    """Blobs that the database names and the backup lacks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRequest:
    """What `karez backup` asks for."""

    to: str
    """The backup folder."""
    keep: int = 0
    """How many snapshots stay; 0: all."""
    with_database: bool = True
    with_blobs: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """What `karez restore` asks for."""

    source: str
    """The backup folder."""
    home: str
    """The state folder of the new cloud."""
    snapshot: str = ""
    """Its name; empty: the newest."""
    database: str = ""
    """SQLAlchemy URL; empty: that of the snapshot's settings, or SQLite in the state folder."""


class DumpableDatabase(Protocol):
    """A database that can be copied into files, and filled from them."""

    def revision(self) -> str:
        """The revision of its tables; empty: it has none."""
        ...

    def blobs(self) -> Sequence[str]:
        """Digests of all blobs that its rows name."""
        ...

    def dump(self, folder: Path) -> DatabaseDump:
        """Write all rows of one moment into a folder, while others go on writing.

        Raises:
            BadRequest: The database holds no cloud.
        """
        ...

    def load(self, folder: Path, dump: DatabaseDump) -> None:
        """Fill an empty database, and migrate it to this version: all of it, or nothing.

        Leases are not taken over: no control that held one is alive.

        Raises:
            StartFailed: The dump is of a newer karez, or the database does not answer.
        """
        ...

    def close(self) -> None:
        """Close all connections."""
        ...
