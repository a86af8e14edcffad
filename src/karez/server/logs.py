"""The output of processes, kept on control's disk, readable while it grows."""

import contextlib
import os
from pathlib import Path

from karez.core.api_models import LogPiece

JOURNAL_BYTES = 64 * 2**20
"""The journal of decisions starts anew at this size; the one before it is kept."""


class FileLogs:
    """See core.ports.LogSink. One folder per workload, one file per process."""

    def __init__(self, folder: Path) -> None:
        """Use a folder."""
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def size(self, job: str, name: str) -> int:
        """See LogSink."""
        path = self._folder / job / name
        return path.stat().st_size if path.exists() else 0

    def append(self, job: str, name: str, data: bytes) -> None:
        """See LogSink."""
        folder = self._folder / job
        folder.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(fd, "ab") as file:
            file.write(data)

    def names(self, job: str) -> list[str]:
        """The files of a workload."""
        folder = self._folder / job
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def read(self, job: str, name: str, offset: int, limit: int) -> LogPiece:
        """A piece from `offset`, cut at a line's end unless the line is longer than the limit."""
        path = self._folder / job / name
        if name not in self.names(job):
            return LogPiece(name=name, text="", next=offset, size=0)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(offset)
            data = file.read(limit)
        cut = data.rfind(b"\n") + 1
        if cut and offset + len(data) < size:
            data = data[:cut]
        return LogPiece(
            name=name, text=data.decode(errors="replace"), next=offset + len(data), size=size
        )


class JournalFile:
    """The scheduler's journal: appended to, and begun anew when it is large.

    Only with a step that states everything: so each file can be redone by itself.
    """

    def __init__(self, path: Path) -> None:
        """Use a file; its folder is there or is made."""
        self._path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, line: str) -> None:
        """One more line. A full disk stops no decision: what cannot be written is left out."""
        data = f"{line}\n".encode()
        with contextlib.suppress(OSError):
            is_whole = line.startswith("{") and '"fresh":true' in line
            if is_whole and self._path.exists() and self._path.stat().st_size > JOURNAL_BYTES:
                self._path.replace(self._path.with_suffix(".log.1"))
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(fd, "ab") as file:
                file.write(data)
