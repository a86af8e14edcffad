"""The fork servers of a node: a cold and a warm one, and one in each environment that is in use."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from karez.drivers.steward.child_processes import ForkServerClient
from karez.drivers.steward.environments import bin_of

COLD, WARM = "cold", "warm"
"""Names of the fork servers of the node's own Python."""
Report = Callable[[str, Mapping[str, Any] | None], None]
"""Takes the name of a fork server and its report; None: it has ended."""


class ForkServers:
    """Starts fork servers and sends them requests; one thread at a time asks for a start."""

    def __init__(
        self, log: Path, preload: str, accelerators: Collection[str], on_report: Report
    ) -> None:
        """Start those of the node's own Python.

        Args:
            log: File for what they print.
            preload: Module that all but the cold one import ahead of time.
            accelerators: Kinds of devices that this node has.
            on_report: Takes their reports.
        """
        self._log, self._preload = log, preload
        self._accelerators, self._on_report = sorted(accelerators), on_report
        self._cold = self._start(COLD, "")
        self._warm = self._start(WARM, preload)
        self._of_environments: dict[Path, tuple[str, ForkServerClient]] = {}
        self._started = 0
        self._idle: set[Path] = set()
        """Environments whose fork server was not in use at the last look."""

    def ask(self, request: Mapping[str, Any], environment: Path | None) -> str:
        """Have a process started; returns the name of its fork server. Raises OSError: it ended.

        A command is executed, so the cold one will do for it: its PATH leads to the environment.
        """
        name, server = self._server_of(environment) if request["warm"] else (COLD, self._cold)
        server.ask(request)
        return name

    def kill(self, key: str, number: int) -> None:
        """Send a signal to a process, whichever has it."""
        for server in self._all():
            try:
                server.ask({"op": "kill", "key": key, "signal": number})
            except OSError:
                continue  # its processes ended with it

    def forget(self, name: str) -> None:
        """Forget the fork server of an environment that has ended: the next start has a new one."""
        for folder, (known, _) in list(self._of_environments.items()):
            if known == name:
                del self._of_environments[folder]

    def take_unused(self, in_use: Collection[Path]) -> list[ForkServerClient]:
        """Give up those of environments that were not in use at the look before either."""
        idle = {folder for folder in self._of_environments if folder not in in_use}
        twice, self._idle = idle & self._idle, idle
        return [self._of_environments.pop(folder)[1] for folder in twice]

    def stop(self) -> None:
        """End all, and their processes."""
        for server in self._all():
            server.stop()

    def _all(self) -> list[ForkServerClient]:
        others = [server for _, server in list(self._of_environments.values())]
        return [self._warm, self._cold, *others]

    def _server_of(self, environment: Path | None) -> tuple[str, ForkServerClient]:
        if environment is None:
            return WARM, self._warm
        if environment not in self._of_environments:
            self._started += 1
            name = f"{environment}#{self._started}"  # not that of one that is still ending
            python = str(bin_of(environment) / "python")
            server = self._start(name, self._preload, python)
            self._of_environments[environment] = (name, server)
        return self._of_environments[environment]

    def _start(self, name: str, preload: str, python: str = "") -> ForkServerClient:
        return ForkServerClient(
            self._log,
            preload,
            partial(self._on_report, name),
            python=python,
            accelerators=self._accelerators,
        )
