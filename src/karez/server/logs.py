"""Log files on control's disk: the output of processes, and the scheduler's decision log."""

import codecs
import contextlib
import os
from pathlib import Path

from typing_extensions import override

from karez.core.api_models import LogPiece
from karez.core.ports import LogSink
from karez.core.processes import LogChunk
from karez.core.settings import LOG_BYTES
from karez.transport.log_file import append_log_file, drop_old, read_log_file

DECISION_LOG_BYTES = 64 * 2**20
"""Size from which the decision log is rotated; one older file is kept."""


_GONE = "[karez] {:,} bytes of older output are gone: the newest {:,} are kept (KAREZ_LOG_BYTES)\n"


class FileLogs(LogSink):
    """Output of processes: one folder per workload, one file per process."""

    def __init__(self, folder: Path, *, keep_bytes: int = LOG_BYTES) -> None:
        """Use a folder, which is created if absent, for the newest `keep_bytes` of each process."""
        self._folder, self._keep_bytes = folder, keep_bytes
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @override
    def size(self, job: str, name: str) -> int:
        path = self._folder / job / name
        return path.stat().st_size if path.exists() else 0

    @override
    def append(self, job: str, name: str, chunk: LogChunk) -> None:
        folder = self._folder / job
        folder.mkdir(mode=0o700, exist_ok=True)
        append_log_file(folder / name, chunk)
        drop_old(folder / name, self._keep_bytes)

    def names(self, job: str) -> list[str]:
        """Names of a workload's log files."""
        folder = self._folder / job
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def read(self, job: str, name: str, offset: int, limit: int) -> LogPiece:
        """Read a piece from `offset`; it ends at a line's end, or else between two characters.

        A line that is not complete yet is left out while there is a complete one.
        """
        if name not in self.names(job):
            return LogPiece(name=name, text="", next=offset, size=0)
        size = self.size(job, name)
        chunk = read_log_file(self._folder / job / name, offset, limit)
        data = chunk.data[: chunk.data.rfind(b"\n") + 1] or _whole_characters(chunk.data)
        gone = chunk.start - offset
        return LogPiece(
            name=name,
            text=_GONE.format(gone, self._keep_bytes) * (gone > 0) + data.decode(errors="replace"),
            next=chunk.start + len(data),
            size=size,
        )


def _whole_characters(data: bytes) -> bytes:
    """Leave out a UTF-8 character at the end that is not complete yet."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data[-4:])
    return data[: len(data) - len(decoder.getstate()[0])]


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
