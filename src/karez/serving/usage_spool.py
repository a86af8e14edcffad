"""Usage spool: calls stay on disk until control has recorded them, so none is lost or doubled."""

import os
from collections.abc import Sequence
from pathlib import Path

from karez.core.codec import from_text
from karez.core.usage import Call


class UsageSpool:
    """An append-only file of calls. One process writes it."""

    def __init__(self, path: Path) -> None:
        """Open a spool; calls that an earlier process could not deliver are still in it."""
        self._path = path
        self._sending = path.with_suffix(".sending")
        self._file = self._open()

    def add(self, lines: Sequence[bytes]) -> None:
        """Append calls, each a line of JSON. The kernel has them when this returns.

        Raises OSError.
        """
        data = b"".join(lines)
        while data:
            data = data[os.write(self._file, data) :]

    def take(self) -> Sequence[Call]:
        """Read the calls to deliver; the same calls are returned until `done`."""
        if not self._sending.exists():
            if self._path.stat().st_size == 0:
                return ()
            os.close(self._file)
            self._path.replace(self._sending)
            self._file = self._open()
        calls = []
        for line in self._sending.read_text().splitlines():
            try:
                calls.append(from_text(Call, line))
            except ValueError:
                continue  # a line cut short by a power loss
        return calls

    def done(self) -> None:
        """Delete the calls that the last `take` returned: they have been delivered."""
        self._sending.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; its calls stay on disk."""
        os.close(self._file)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
