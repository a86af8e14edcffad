"""A child process of the supervisor: started with a log file, and restarted when it dies."""

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from karez.server.processes.descendants import die_with_parent

FIRST_PAUSE_S, LAST_PAUSE_S, RECENT_S = 0.25, 4.0, 60.0
"""A child that dies is restarted at once, then ever more slowly while it keeps dying."""


@dataclass(slots=True, kw_only=True)
class Child:
    """One program of the cloud, and its starts so far."""

    name: str
    command: Sequence[str]
    env: dict[str, str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    starts: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Start the program; its output is appended to its log file."""
        fd = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(fd, "ab") as file:
            self.process = subprocess.Popen(  # noqa: S603 - our own programs
                list(self.command),
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self.starts.append(now())

    def is_running(self) -> bool:
        """Whether the program was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def has_died(self) -> bool:
        """Whether the program was started and has ended."""
        return self.process is not None and self.process.poll() is not None

    def may_restart(self) -> bool:
        """Whether the pause since the last start is over; it grows with recent starts."""
        recent = [at for at in self.starts if now() - at < RECENT_S]
        pause_s = min(FIRST_PAUSE_S * 2.0 ** (len(recent) - 1), LAST_PAUSE_S)
        return not recent or now() - self.starts[-1] > pause_s

    def last_line(self) -> str:
        """The last line of the log file, for people."""
        lines = self.log.read_text(errors="replace").splitlines()
        return (lines or ["its log is empty."])[-1][:300]


def now() -> float:
    """Seconds of the host's monotonic clock."""
    return time.monotonic()  # noqa: TID251 - the supervisor owns its clock
