"""The fork servers of a node: a cold and a warm one, and one in each environment that is in use.

A cold or warm one that ends is started again at once; one that ends again and again before it is
ready is started after pauses, and the node says so.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from karez.drivers.steward.child_processes import ForkServerClient
from karez.drivers.steward.environments import bin_of

COLD, WARM = "cold", "warm"
"""Kinds of fork servers of the node's own Python; their names have a number behind."""
FIRST_PAUSE_S, LAST_PAUSE_S = 0.5, 30.0
"""Pauses before the third start of one that does not come up, and before all later ones at most."""
Report = Callable[[str, Mapping[str, Any] | None], None]
"""Takes the name of a fork server and its report; None: it has ended."""


@dataclass(slots=True)
class _Own:
    """A fork server of the node's own Python, which is started anew whenever it ends."""

    name: str
    client: ForkServerClient
    failures: int
    """How often in a row it has ended before it was ready."""
    is_ready: bool = False


class ForkServers:
    """Starts fork servers and sends them requests; one thread at a time asks for a start."""

    def __init__(
        self,
        log: Path,
        orders: Path,
        preload: str,
        accelerators: Collection[str],
        on_report: Report,
    ) -> None:
        """Start those of the node's own Python.

        Args:
            log: File for what they print.
            orders: Folder in memory, for orders on their way to processes.
            preload: Module that all but the cold one import ahead of time.
            accelerators: Kinds of devices that this node has.
            on_report: Takes their reports.
        """
        self._log, self._orders, self._preload = log, orders, preload
        self._accelerators, self._on_report = sorted(accelerators), on_report
        self._is_stopped = threading.Event()
        self._lock = threading.Lock()
        self._started = 0
        self._own: dict[str, _Own] = {}
        with self._lock:
            for kind in (COLD, WARM):
                self._own[kind] = self._start_own(kind, 0)
        self._of_environments: dict[Path, tuple[str, ForkServerClient]] = {}
        self._idle: set[Path] = set()
        """Environments whose fork server was not in use at the last look."""

    def ask(self, request: Mapping[str, Any], environment: Path | None) -> str:
        """Have a process started; returns the name of its fork server. Raises OSError: it ended.

        A command is executed, so the cold one will do for it: its PATH leads to the environment.
        """
        name, server = self._server_of(environment if request["warm"] else None, request["warm"])
        server.ask(request)
        return name

    def kill(self, key: str, number: int) -> None:
        """Send a signal to a process, whichever has it."""
        for server in self._all():
            try:
                server.ask({"op": "kill", "key": key, "signal": number})
            except OSError:
                continue  # its processes ended with it

    def replace(self, name: str) -> None:
        """Start another in place of one that has ended; of an environment, with the next use."""
        with self._lock:  # one that ends at once is in its place by now
            for kind, own in self._own.items():
                if own.name == name and not self._is_stopped.is_set():
                    self._start_again(kind, 0 if own.is_ready else own.failures + 1)
        for folder, (known, _) in list(self._of_environments.items()):
            if known == name:
                del self._of_environments[folder]

    def is_cold(self, name: str) -> bool:
        """Whether a fork server is, or was, a cold one."""
        return name.startswith(COLD)

    def problems(self) -> list[str]:
        """What does not come up, for people."""
        return [
            f"the {kind} fork server ended {own.failures} times in a row: see {self._log}"
            for kind, own in self._own.items()
            if own.failures > 1
        ]

    def take_unused(self, in_use: Collection[Path]) -> list[ForkServerClient]:
        """Give up those of environments that were not in use at the look before either."""
        idle = {folder for folder in self._of_environments if folder not in in_use}
        twice, self._idle = idle & self._idle, idle
        return [self._of_environments.pop(folder)[1] for folder in twice]

    def stop(self) -> None:
        """End all, and their processes."""
        self._is_stopped.set()
        for server in self._all():
            server.stop()

    def _all(self) -> list[ForkServerClient]:
        others = [server for _, server in list(self._of_environments.values())]
        return [own.client for own in self._own.values()] + others

    def _start_own(self, kind: str, failures: int) -> _Own:
        self._started += 1
        name = f"{kind}#{self._started}"
        client = self._start(name, self._preload if kind == WARM else "")
        return _Own(name=name, client=client, failures=failures)

    def _start_again(self, kind: str, failures: int) -> None:
        if failures <= 1:
            try:
                self._own[kind] = self._start_own(kind, failures)
            except OSError:  # such as no memory for one more process
                failures = 2
            else:
                return
        self._own[kind].failures = failures
        later = threading.Thread(target=self._start_later, args=(kind, failures), daemon=True)
        later.start()

    def _start_later(self, kind: str, failures: int) -> None:
        pause_s = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures, 16))
        while not self._is_stopped.wait(pause_s):
            with self._lock:
                try:
                    self._own[kind] = self._start_own(kind, failures)
                except OSError:
                    continue
                return

    def _hear(self, name: str, report: Mapping[str, Any] | None) -> None:
        if report is not None and report.get("event") == "ready":
            for own in self._own.values():
                if own.name == name:
                    own.is_ready, own.failures = True, 0
            return
        self._on_report(name, report)

    def _server_of(self, environment: Path | None, is_warm: bool) -> tuple[str, ForkServerClient]:
        if environment is None:
            own = self._own[WARM if is_warm else COLD]
            return own.name, own.client
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
            self._orders,
            preload,
            partial(self._hear, name),
            python=python,
            accelerators=self._accelerators,
        )
