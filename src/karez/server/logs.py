"""Log files on control's disk: the output of processes, and the scheduler's decision log."""

import contextlib
import os
from pathlib import Path

from typing_extensions import override

from karez.core.api_models import LogPiece
from karez.core.ports import LogSink

DECISION_LOG_BYTES = 64 * 2**20
"""Size from which the decision log is rotated; one older file is kept."""


class FileLogs(LogSink):
    """Output of processes: one folder per workload, one file per process."""

    def __init__(self, folder: Path) -> None:
        """Use a folder; it is created if absent."""
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @override
    def size(self, job: str, name: str) -> int:
        path = self._folder / job / name
        return path.stat().st_size if path.exists() else 0

    @override
    def append(self, job: str, name: str, data: bytes) -> None:
        folder = self._folder / job
        folder.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(fd, "ab") as file:
            file.write(data)

    def names(self, job: str) -> list[str]:
        """Names of a workload's log files."""
        folder = self._folder / job
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def read(self, job: str, name: str, offset: int, limit: int) -> LogPiece:
        """Read a piece from `offset`, cut at a line's end unless the line exceeds the limit."""
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


class DecisionLogFile:
    """The scheduler's decision log on disk, rotated when it is large.

    A new file starts with a line that states the whole cluster, so each file can be verified alone.
    """

    def __init__(self, path: Path) -> None:
        """Use a file; its folder is created if absent."""
        self._path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, line: str) -> None:
        """Append a line. A line that cannot be written, on a full disk, is left out."""
        data = f"{line}\n".encode()
        with contextlib.suppress(OSError):
            states_all = line.startswith("{") and '"is_reset":true' in line
            if states_all and self._is_full():
                self._path.replace(self._path.with_suffix(".log.1"))
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(fd, "ab") as file:
                file.write(data)

    def _is_full(self) -> bool:
        return self._path.exists() and self._path.stat().st_size > DECISION_LOG_BYTES
