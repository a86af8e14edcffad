"""The blob store: a folder, or anything fsspec reaches (s3://, gs://, ...)."""

import errno
import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem
from typing_extensions import override

from karez.core.artifacts import FileEntry
from karez.core.errors import BadRequest, BrokenArtifact, MissingPart, NotFound, StorageFull
from karez.core.ports import Blobs
from karez.core.settings import OBJECT_STORES

_CHUNK = 1 << 20
DIGEST_LENGTH = 64
"""Characters of a SHA-256 in hexadecimal."""


class FsspecBlobs(Blobs):
    """Stores blobs in a folder or at an fsspec URL."""

    def __init__(self, url: str) -> None:
        """Open a folder path or an fsspec URL. Raises MissingPart, BadRequest."""
        self._fs, self._root = _open(url)
        self._is_local = isinstance(self._fs, LocalFileSystem)
        self._fs.makedirs(self._root, exist_ok=True)

    @override
    def put(self, source: BinaryIO, *, expect: str = "") -> FileEntry:
        partial_path = f"{self._root}/{secrets.token_hex(8)}.part"
        seen, size = hashlib.sha256(), 0
        try:
            with self._fs.open(partial_path, "wb") as file:
                while chunk := source.read(_CHUNK):
                    seen.update(chunk)
                    size += len(chunk)
                    file.write(chunk)
                if self._is_local:  # a power cut leaves it whole, or does not leave it
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            self._drop(partial_path)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(path=self._root, wanted_bytes=size) from error
            raise
        digest = seen.hexdigest()
        if expect and digest != expect:
            self._drop(partial_path)
            raise BrokenArtifact(name=expect, problem=f"its content has the digest {digest}")
        self._fs.makedirs(f"{self._root}/{digest[:2]}", exist_ok=True)
        self._fs.mv(partial_path, self._path(digest))
        return FileEntry(path="blob", sha256=digest, size_bytes=size)

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
        return f"{self._root}/{digest[:2]}/{digest}"

    def _drop(self, path: str) -> None:
        if self._fs.exists(path):
            self._fs.rm(path)


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
