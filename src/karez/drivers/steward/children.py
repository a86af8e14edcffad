"""The steward's own children: nurseries, which bear all other processes, and the keeper."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from karez.core import wire

KEEP_ENV = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "TMPDIR")
"""What processes inherit of the agent's environment; above all not Ray's token."""


class NurseryLine:
    """A nursery and the line to it."""

    def __init__(
        self, log: Path, preload: str, hear: Callable[[Mapping[str, Any] | None], None]
    ) -> None:
        """Start it. `hear` gets each report, and None once it has ended."""
        self._hear = hear
        self._lock = threading.Lock()
        self._line, theirs = socket.socketpair()
        command = [sys.executable, "-m", "karez.drivers.steward.nursery", str(theirs.fileno())]
        if preload:
            command.append(preload)
        env = inherited()
        env.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
        env.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="")
        with log.open("ab") as file:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                command, pass_fds=[theirs.fileno()], env=env, stdin=subprocess.DEVNULL,
                stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        theirs.close()
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, request: Mapping[str, Any]) -> None:
        """Send a request. Raises OSError if the nursery has ended."""
        with self._lock:
            wire.send(self._line, request)

    def stop(self) -> None:
        """Hang up: it kills what it bore and ends."""
        self._line.shutdown(socket.SHUT_RDWR)
        _wait(self._process)

    def _listen(self) -> None:
        try:
            while True:
                report, _ = wire.receive(self._line)
                self._hear(report)
        except (EOFError, OSError):
            self._hear(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperChild:
    """A keeper and its port."""

    process: "subprocess.Popen[bytes]"
    port: int

    def stop(self) -> None:
        """Hang up: it ends."""
        if self.process.stdin:
            self.process.stdin.close()
        _wait(self.process)


def start_keeper(address: str, token: str) -> KeeperChild:
    """Start this node's keeper."""
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "karez.drivers.steward.keeper", address],
        env={**inherited(), "KAREZ_KEEPER_TOKEN": token},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    line = process.stdout.readline() if process.stdout else b""
    return KeeperChild(process=process, port=int(line or 0))


def inherited() -> dict[str, str]:
    """The part of this process's environment that others may have."""
    return {k: os.environ[k] for k in KEEP_ENV if k in os.environ}  # noqa: TID251 - agent's own


def _wait(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
