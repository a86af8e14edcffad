"""The blob store: a folder, or anything fsspec reaches (s3://, gs://, ...)."""

import errno
import hashlib
import math
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem
from typing_extensions import override

from karez.core.artifacts import FileEntry
from karez.core.errors import BadRequest, BrokenArtifact, MissingPart, NotFound, StorageFull
from karez.core.ports import BlobStore, BlobWriter
from karez.core.settings import OBJECT_STORES

_CHUNK = 1 << 20
DIGEST_LENGTH = 64
"""Characters of a SHA-256 in hexadecimal."""


class FsspecBlobs(BlobStore):
    """Stores blobs in a folder or at an fsspec URL."""

    def __init__(self, url: str) -> None:
        """Open a folder path or an fsspec URL. Raises MissingPart, BadRequest."""
        self._fs, self._root = _open(url)
        self._is_local = isinstance(self._fs, LocalFileSystem)
        self._fs.makedirs(self._root, exist_ok=True)

    @override
    def put(self, source: BinaryIO, *, expect: str = "") -> FileEntry:
        writer = self.writer(expect=expect)
        try:
            while chunk := source.read(_CHUNK):
                writer.write(chunk)
            return writer.finish()
        except BaseException:
            writer.abort()
            raise

    @override
    def writer(self, *, expect: str = "") -> "FsspecWriter":
        return FsspecWriter(self._fs, self._root, expect, is_local=self._is_local)

    @override
    def sweep(self, *, before: float) -> int:
        old = [
            path
            for path, info in self._fs.glob(f"{self._root}/*.part", detail=True).items()
            if _changed_at(info) < before
        ]
        for path in old:
            self._fs.rm(path)
        return len(old)

    @override
    def open(self, digest: str) -> BinaryIO:
        if not self.has(digest):
            raise NotFound(noun="blob", name=digest)
        return cast("BinaryIO", self._fs.open(self._path(digest), "rb"))

    @override
    def has(self, digest: str) -> bool:
        return bool(self._fs.exists(self._path(digest)))

    @override
    def set_aside(self, digest: str) -> None:
        self._fs.mv(self._path(digest), f"{self._path(digest)}.damaged")

    @override
    def digests(self) -> Iterable[str]:
        for path in sorted(self._fs.glob(f"{self._root}/??/*")):
            name = path.rpartition("/")[2]
            if len(name) == DIGEST_LENGTH:  # else it is being written
                yield name

    @override
    def local(self, digest: str) -> Path | None:
        return Path(self._path(digest)) if self._is_local and self.has(digest) else None

    @property
    def folder(self) -> str:
        """The folder on this machine, or empty."""
        return self._root if self._is_local else ""

    def _path(self, digest: str) -> str:
        return _path(self._root, digest)


class FsspecWriter(BlobWriter):
    """Writes a blob beside the others, and moves it to its place once it is whole."""

    def __init__(self, fs: Any, root: str, expect: str, *, is_local: bool) -> None:
        """Open a partial file."""
        self._fs, self._root, self._expect, self._is_local = fs, root, expect, is_local
        self._partial = f"{root}/{secrets.token_hex(8)}.part"
        self._seen = hashlib.sha256()
        self.size_bytes = 0
        with self._typed():
            self._file = fs.open(self._partial, "wb")

    @override
    def write(self, chunk: bytes) -> None:
        self._seen.update(chunk)
        self.size_bytes += len(chunk)
        with self._typed():
            self._file.write(chunk)

    @override
    def finish(self) -> FileEntry:
        digest = self._seen.hexdigest()
        if self._expect and digest != self._expect:
            self.abort()
            raise BrokenArtifact(name=self._expect, problem=f"its content has the digest {digest}")
        with self._typed():
            if self._is_local:  # a power cut leaves it whole, or does not leave it
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()
            self._fs.makedirs(f"{self._root}/{digest[:2]}", exist_ok=True)
            self._fs.mv(self._partial, _path(self._root, digest))
        return FileEntry(path="blob", sha256=digest, size_bytes=self.size_bytes)

    @override
    def abort(self) -> None:
        with suppress(OSError):  # what is on its way to a full disk is not wanted
            self._file.close()
        if self._fs.exists(self._partial):
            self._fs.rm(self._partial)

    @contextmanager
    def _typed(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if hasattr(self, "_file"):
                self.abort()
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(path=self._root, wanted_bytes=self.size_bytes) from error
            raise


def _path(root: str, digest: str) -> str:
    return f"{root}/{digest[:2]}/{digest}"


def _changed_at(info: Mapping[str, Any]) -> float:
    """When a file changed, as its file system says it; infinite if it does not."""
    found = info.get("mtime") or info.get("LastModified") or info.get("last_modified")
    if isinstance(found, int | float):
        return float(found)
    return found.timestamp() if isinstance(found, datetime) else math.inf


def _open(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    scheme, separator, path = url.partition("://")
    if separator and scheme in OBJECT_STORES:
        try:
            from obstore.fsspec import FsspecStore  # noqa: PLC0415 - an extra
        except ModuleNotFoundError as error:
            raise MissingPart(
                part="obstore", needed_for=f"blobs at {url}", install="pip install 'karez[s3]'"
            ) from error
        make = cast("Any", FsspecStore)  # typed by the literal of each scheme
        return make(scheme, skip_instance_cache=True), path.rstrip("/")
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:  # no such scheme, or a package of its own
        fix = f"Use a folder, or a URL of {', '.join(OBJECT_STORES)}."
        raise BadRequest(problem=f"blobs cannot be stored at {url}: {error}", fix=fix) from error
    return found
