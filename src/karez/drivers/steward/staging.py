"""Staging: copies inputs of processes from the blob store to a node, and outputs back."""

import errno
import fcntl
import hashlib
import http.client
import io
import secrets
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import structlog

from karez.core.artifacts import FileEntry, FileMode, is_inside
from karez.core.errors import BrokenArtifact, NotFound, StorageFull, Unreachable
from karez.drivers.steward.jobs_own_files import files_below, open_inside, stays_inside

log = structlog.get_logger()
FICLONE = 0x40049409  # linux/fs.h
_CHUNK = 1 << 20
_DAMAGED = "its bytes have changed in the blob store; `karez doctor --deep` tells what is damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobSource:
    """Access to the blob store: a folder shared with control, or HTTP."""

    folder: str = ""
    url: str = ""
    key: str = ""

    def fetch(self, digest: str, target: Path) -> None:
        """Put a copy of a blob at `target`: what is written into it reaches nobody else.

        Args:
            digest: SHA-256 of the blob in hex. The copy is checked against it.
            target: Path of the file; its folder is created.

        Raises:
            NotFound, BrokenArtifact, StorageFull, Unreachable.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        shared = self._place(digest)
        partial_file = target.parent / f"{secrets.token_hex(8)}.part"
        try:
            with _room(target):
                if self.folder and shared.exists():
                    with shared.open("rb") as file:
                        found, problem = _copy(file, partial_file), _DAMAGED
                elif self.url:
                    found, problem = self._receive(digest, partial_file), "it arrived otherwise"
                else:
                    raise NotFound(noun="blob", name=digest)
            if found != digest:
                raise BrokenArtifact(name=f"blob {digest}", problem=problem)
            partial_file.replace(target)
        finally:
            partial_file.unlink(missing_ok=True)

    def store(self, source: Path, within: Path) -> FileEntry:
        """Put a file into the blob store.

        Args:
            source: The file.
            within: The folder that it must be in, wherever its links lead.

        Raises:
            FileNotFoundError: It is gone, or not there. Else as `fetch`.
        """
        with open_inside(source, within) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.seek(0, io.SEEK_END)
            entry = FileEntry(path=source.name, sha256=digest, size_bytes=size)
            file.seek(0)
            if not self.folder:
                self._upload(digest, size, file)
                return entry
            place = self._place(digest)
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                partial_file = place.with_name(f"{digest}.{secrets.token_hex(8)}.part")
                try:
                    with _room(place):
                        if _copy(file, partial_file) != digest:
                            raise BrokenArtifact(name=str(source), problem="it is being written")
                    partial_file.replace(place)
                finally:
                    partial_file.unlink(missing_ok=True)
        return entry

    def store_changing(self, source: Path, within: Path, scratch: Path) -> FileEntry:
        """Put a file into the blob store that may be written meanwhile: a copy of it is stored.

        Args:
            source: The file.
            within: The folder that it must be in, wherever its links lead.
            scratch: A folder for the copy where the blob store is not on this host.

        Raises:
            FileNotFoundError: It is gone, or not there. Else as `fetch`.
        """
        copy = Path(self.folder or scratch) / f"{secrets.token_hex(8)}.part"
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open_inside(source, within) as file:
                _copy(file, copy)
            if not self.folder:
                return replace(self.store(copy, scratch), path=source.name)
            digest, size = digest_of(copy)
            place = self._place(digest)
            place.parent.mkdir(parents=True, exist_ok=True)
            copy.replace(place)
        finally:
            copy.unlink(missing_ok=True)
        return FileEntry(path=source.name, sha256=digest, size_bytes=size)

    def _place(self, digest: str) -> Path:
        return Path(self.folder) / digest[:2] / digest

    def _connect(self) -> tuple[http.client.HTTPConnection, str]:
        parts = urllib.parse.urlsplit(self.url)
        return http.client.HTTPConnection(parts.netloc, timeout=60), parts.path

    def _download(self, digest: str) -> Iterator[bytes]:
        connection, base = self._connect()
        try:
            connection.request(
                "GET",
                f"{base}/node/blobs/{digest}",
                headers={"Authorization": f"Bearer {self.key}"},
            )
            answer = connection.getresponse()
            if answer.status != http.HTTPStatus.OK:
                raise NotFound(noun="blob", name=digest)
            while chunk := answer.read(_CHUNK):
                yield chunk
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(what_is_it="The blob store", address=self.url) from error
        finally:
            connection.close()

    def _receive(self, digest: str, target: Path) -> str:
        seen = hashlib.sha256()
        with target.open("wb") as file:
            for chunk in self._download(digest):
                seen.update(chunk)
                file.write(chunk)
        return seen.hexdigest()

    def _upload(self, digest: str, size: int, file: BinaryIO) -> None:
        connection, base = self._connect()
        headers = {"Authorization": f"Bearer {self.key}", "Content-Length": str(size)}
        try:
            connection.request("PUT", f"{base}/node/blobs/{digest}", body=file, headers=headers)
            answer = connection.getresponse()
            if answer.status == http.HTTPStatus.INSUFFICIENT_STORAGE:
                raise StorageFull(path=self.url, wanted_bytes=size)
            if answer.status >= http.HTTPStatus.BAD_REQUEST:
                raise BrokenArtifact(name=digest, problem=f"the store answered {answer.status}")
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(what_is_it="The blob store", address=self.url) from error
        finally:
            connection.close()


def digest_of(path: Path) -> tuple[str, int]:
    """SHA-256 in hex and size in bytes of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return digest, path.stat().st_size


def lay_out(source: BlobSource, files: Iterable[FileEntry], folder: Path) -> None:
    """Copy an artifact's files into a folder, with their modes. Raises as `fetch`."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in files:
        _lay_out(source, entry, folder / entry.path)


def _lay_out(source: BlobSource, entry: FileEntry, target: Path) -> None:
    if entry.mode == FileMode.FOLDER:
        target.mkdir(parents=True, exist_ok=True)
        return
    if entry.mode != FileMode.LINK and target.exists() and not target.is_symlink():
        return
    source.fetch(entry.sha256, target)
    if entry.mode == FileMode.EXECUTABLE:
        target.chmod(target.stat().st_mode | 0o111)
    if entry.mode == FileMode.LINK:
        to = target.read_text()
        target.unlink()
        if not is_inside(entry.path, to):
            raise BrokenArtifact(name=entry.path, problem=f"it is a link to {to}, outside of it")
        target.symlink_to(to)


def gather(source: BlobSource, folder: Path) -> list[tuple[str, FileEntry]]:
    """Store all files under `folder`; each child of it is one output: (output name, file) pairs."""
    outputs: list[tuple[str, FileEntry]] = []
    for child in sorted(folder.iterdir()) if folder.exists() else []:
        is_own = stays_inside(child, folder)
        for file in [child] if child.is_file() or not is_own else files_below(child):
            if not stays_inside(file, folder):
                log.warning("output.left-out", link=str(file), to=str(file.resolve()))
                continue
            path = file.name if child.is_file() else str(file.relative_to(child))
            try:
                entry = source.store(file, folder)
            except FileNotFoundError as error:  # changed by a process of the job that runs yet
                log.warning("output.left-out", path=str(file), why=str(error))
                continue
            name = child.stem if child.is_file() else child.name
            outputs.append(
                (name, FileEntry(path=path, sha256=entry.sha256, size_bytes=entry.size_bytes))
            )
    return outputs


@contextmanager
def _room(target: Path) -> Iterator[None]:
    """Turn a full disk into StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(path=str(target.parent)) from error
        raise


def _copy(file: BinaryIO, target: Path) -> str:
    """Copy an open file; returns the SHA-256 of the copy.

    Where the file system can, both share their blocks until one is written (copy on write).
    """
    with target.open("wb") as copy:
        seen = hashlib.sha256()
        is_shared = _share_blocks(file, copy)
        while chunk := file.read(_CHUNK):
            seen.update(chunk)
            if not is_shared:
                copy.write(chunk)
        return seen.hexdigest()


def _share_blocks(source: BinaryIO, target: BinaryIO) -> bool:
    try:
        fcntl.ioctl(target.fileno(), FICLONE, source.fileno())
    except OSError:  # most file systems cannot: XFS and Btrfs do
        return False
    return True
