"""What the process of every engine is told, and what it tells its node agent."""

import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from karez.core import environment
from karez.core.codec import from_text
from karez.core.engines import EngineLaunch, adapter_folder
from karez.core.messages.greetings import ProcessGreeting
from karez.core.messages.reports import EngineMemoryReport, ListeningReport
from karez.runtime.host_clock import monotonic_s
from karez.transport import framing

MEASURE_S = 5.0
"""Seconds between two measurements of an engine's memory."""
GROWN = 1.02
"""Growth that is reported: less is noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProcess:
    """The process of an engine."""

    launch: EngineLaunch
    key: str
    """Which requests have to show."""
    address: str
    """Where it listens."""
    model: Path
    """Folder of the model."""
    adapters: Mapping[str, Path]
    """Name of an adapter -> its folder, in the order of their numbers."""
    env: Mapping[str, str]
    _began_at: float = field(default_factory=lambda: psutil.Process().create_time() - monotonic_s())

    @classmethod
    def here(cls) -> "EngineProcess":
        """What this process is started with."""
        env = os.environ  # noqa: TID251 - this process's own main
        launch = from_text(EngineLaunch, env[environment.ENGINE])
        inputs = Path(env[environment.INPUTS])
        return cls(
            launch=launch,
            key=env[environment.ENGINE_KEY],
            address=env[environment.ADDRESS],
            model=inputs / "model",
            adapters={
                name: inputs / adapter_folder(number) for number, name in enumerate(launch.adapters)
            },
            env=dict(env),
        )

    @property
    def threads(self) -> int:
        """Cores that it may use."""
        return len(os.sched_getaffinity(0))

    def now(self) -> float:
        """UTC epoch seconds: when this process began, and for how long it has run."""
        return self._began_at + monotonic_s()

    def free_port(self) -> int:
        """A port of its address that nobody listens on."""
        with socket.create_server((self.address, 0)) as probe:
            return int(probe.getsockname()[1])

    def announce(self, port: int, memory_of: Callable[[], int]) -> None:
        """Tell the node agent where it listens and, again and again, what memory it takes.

        Never returns.
        """
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(self.env[environment.STEWARD])
            greeting = ProcessGreeting(
                key=self.env[environment.KEY_NAME], token=self.env[environment.PROCESS_TOKEN]
            )
            framing.send_message(stream, greeting)
            url = f"http://{self.address}:{port}"
            framing.send_message(stream, ListeningReport(url=url))
            never, told = threading.Event(), 0
            while True:
                never.wait(MEASURE_S)
                taken = memory_of()
                if taken > told * GROWN:
                    told = taken
                    framing.send_message(stream, EngineMemoryReport(bytes=taken))


def own_memory() -> int:
    """Bytes of memory that this process and those below it take: what limits count."""
    this, total = psutil.Process(), 0
    for process in (this, *this.children(recursive=True)):
        try:
            total += int(process.memory_full_info().uss)
        except psutil.Error:
            continue  # it has just ended
    return total


def weights_file(folder: Path, name: str, suffix: str) -> Path | None:
    """The file of weights of this name, or the first of its kind; None: there is none."""
    files = sorted(folder.rglob(f"*{suffix}"))
    named = [file for file in files if file.name == name]
    return next(iter(named or files), None)
