"""Usage spool: calls stay on disk until control has recorded them, so none is lost or doubled."""

import os
from collections.abc import Sequence
from pathlib import Path

from karez.core.codec import from_text
from karez.core.usage import Call

BATCH_BYTES = 1 << 20
"""Of calls that are delivered at once: some thousands, far below what control reads."""


class UsageSpool:
    """An append-only file of calls. One process writes it."""

    def __init__(self, path: Path) -> None:
        """Open a spool; calls that an earlier process could not deliver are still in it."""
        self._path = path
        self._sending = path.with_suffix(".sending")
        self._file = self._open()
        self._delivered = self._taken = 0
        """Bytes of what is delivered: those that control has, and those up to the last `take`."""

    def add(self, lines: Sequence[bytes]) -> None:
        """Append calls, each a line of JSON. The kernel has them when this returns.

        Raises OSError.
        """
        data = b"".join(lines)
        while data:
            data = data[os.write(self._file, data) :]

    def rotate(self) -> bool:
        """Set the calls of until now apart, to be delivered; returns whether there are any.

        Raises OSError; then calls are still appended where they were.
        """
        if self._sending.exists():
            return True
        if self._path.stat().st_size == 0:
            return False
        self._path.replace(self._sending)
        try:
            opened = self._open()
        except OSError:  # such as too many open files
            self._sending.replace(self._path)
            raise
        before, self._file = self._file, opened
        os.close(before)
        return True

    def take(self) -> Sequence[Call]:
        """Read a batch of the calls that `rotate` set apart; the same until `done`.

        Another thread may call it. Raises OSError.
        """
        with self._sending.open("rb") as file:
            file.seek(self._delivered)
            data = file.read(BATCH_BYTES)
            if not data.endswith(b"\n"):
                data += file.readline()
        self._taken = self._delivered + len(data)
        calls = []
        for line in data.splitlines():
            try:
                calls.append(from_text(Call, line))
            except ValueError:
                continue  # a line cut short by a power loss
        return calls

    def done(self) -> None:
        """Forget the calls that the last `take` returned: they have been delivered."""
        self._delivered = self._taken
        if self._delivered >= self._sending.stat().st_size:
            self._sending.unlink()
            self._delivered = 0

    def close(self) -> None:
        """Close the file; its calls stay on disk."""
        os.close(self._file)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
