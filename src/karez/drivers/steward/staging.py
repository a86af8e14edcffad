"""Staging: copies inputs of processes from the blob store to a node, and outputs back."""

import errno
import hashlib
import http.client
import os
import secrets
import shutil
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from karez.core.artifacts import FileEntry
from karez.core.errors import BrokenArtifact, NotFound, StorageFull, Unreachable

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobSource:
    """Access to the blob store: a folder shared with control, or HTTP."""

    folder: str = ""
    url: str = ""
    key: str = ""

    def fetch(self, digest: str, target: Path, *, is_copy: bool = False) -> None:
        """Put a blob at `target`, which may be a link to it that must not be written to.

        Args:
            digest: SHA-256 of the blob in hex.
            target: Path of the file; its folder is created.
            is_copy: Make a file of its own, which may be written to.

        Raises:
            NotFound, BrokenArtifact, StorageFull, Unreachable.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        shared = self._place(digest)
        if self.folder and shared.exists():
            if is_copy:
                _copy(shared, target)
            else:
                _link(shared, target)
            return
        if not self.url:
            raise NotFound(noun="blob", name=digest)
        partial_file = target.with_name(target.name + ".part")
        with _room(target), partial_file.open("wb") as file:
            seen = hashlib.sha256()
            for chunk in self._download(digest):
                seen.update(chunk)
                file.write(chunk)
        if seen.hexdigest() != digest:
            partial_file.unlink()
            raise BrokenArtifact(name=digest, problem="it arrived with other content")
        partial_file.replace(target)

    def store(self, source: Path) -> FileEntry:
        """Put a file into the blob store. Raises as `fetch`."""
        digest, size = digest_of(source)
        entry = FileEntry(path=source.name, sha256=digest, size_bytes=size)
        if self.folder:
            place = self._place(digest)
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                partial_file = place.with_name(f"{digest}.{os.getpid()}.part")
                with _room(place):
                    shutil.copyfile(source, partial_file)
                    partial_file.replace(place)
            return entry
        with source.open("rb") as file:
            self._upload(digest, size, file)
        return entry

    def store_changing(self, source: Path, scratch: Path) -> FileEntry:
        """Put a file into the blob store that may be written meanwhile: a copy of it is stored.

        Args:
            source: The file.
            scratch: A folder for the copy where the blob store is not on this host.

        Raises:
            FileNotFoundError: The file is gone. Else as `fetch`.
        """
        copy = Path(self.folder or scratch) / f"{secrets.token_hex(8)}.part"
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            _copy(source, copy)
            if not self.folder:
                return replace(self.store(copy), path=source.name)
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
    """Copy an artifact's files into a folder; present files are kept. Raises as `fetch`."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in files:
        target = folder / entry.path
        if not target.exists() or target.stat().st_size != entry.size_bytes:
            source.fetch(entry.sha256, target)


def gather(source: BlobSource, folder: Path) -> list[tuple[str, FileEntry]]:
    """Store all files under `folder`; each child of it is one output: (output name, file) pairs."""
    outputs: list[tuple[str, FileEntry]] = []
    for child in sorted(folder.iterdir()) if folder.exists() else []:
        files = [child] if child.is_file() else sorted(p for p in child.rglob("*") if p.is_file())
        for file in files:
            path = file.name if child.is_file() else str(file.relative_to(child))
            entry = source.store(file)
            name = child.stem if child.is_file() else child.name
            outputs.append(
                (name, FileEntry(path=path, sha256=entry.sha256, size_bytes=entry.size_bytes))
            )
    return outputs


class _room:  # noqa: N801 - reads as a phrase where it is used
    """Turns a full disk into StorageFull and removes the partial file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            for partial in self.target.parent.glob(self.target.name + "*.part"):
                partial.unlink(missing_ok=True)
            raise StorageFull(path=str(self.target.parent)) from error


def _link(shared: Path, target: Path) -> None:
    """A hard link where the file system allows, else a copy."""
    target.unlink(missing_ok=True)
    try:
        os.link(shared, target)
    except OSError:
        _copy(shared, target)


def _copy(source: Path, target: Path) -> None:
    with _room(target):
        shutil.copyfile(source, target)
