"""Watchdogs of a node: the fence stops work without control, the enforcer holds work to grants."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from karez.drivers.steward.job_files import OF_THE_JOB
from karez.drivers.steward.process_table import ProcessTable, TrackedProcess
from karez.drivers.steward.resource_limits import CHECK_S, over_limit
from karez.transport.log_file import drop_old

log = structlog.get_logger()
FENCE_CHECK_S = 5.0
"""Longest pause, in seconds, between two checks of the fence."""


class Fence:
    """Kills all processes when control has been silent for too long: another may own them now."""

    def __init__(self, table: ProcessTable, kill: Callable[[str], None], limit_s: float) -> None:
        """Start the check on a thread of its own; `kill` takes a process's key."""
        self._table, self._kill, self._limit_s = table, kill, limit_s
        self._called_at = _now()
        threading.Thread(target=self._run, daemon=True).start()

    def touch(self) -> None:
        """Record that control has called."""
        self._called_at = _now()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            if _now() - self._called_at > self._limit_s:
                for process in self._table.alive():
                    self._kill(process.spec.key)
            pause.wait(min(FENCE_CHECK_S, self._limit_s / 4))


class ResourceEnforcer:
    """Kills processes that use more memory or storage than they were granted, and cuts logs."""

    def __init__(
        self,
        table: ProcessTable,
        kill: Callable[[str], None],
        kill_guest: Callable[[str], None],
        log_bytes: int,
    ) -> None:
        """Start the check on a thread of its own; `kill` takes a process's key."""
        self._table, self._log_bytes = table, log_bytes
        self._kill, self._kill_guest = kill, kill_guest
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            for process in self._table.alive():
                try:
                    self._check(process)
                except Exception:  # of one process: the others are held to their grants
                    log.exception("process.not-checked", process=process.spec.key)
            pause.wait(CHECK_S)

    def _check(self, process: TrackedProcess) -> None:
        grant = process.spec.grant
        drop_old(process.folder / "log", self._log_bytes)
        if not process.info.pid or grant is None or process.exceeded:
            return  # one that is being ended uses nothing any more
        folders = self._folders_of(process)
        process.exceeded = over_limit(grant, [process.subreaper], folders)
        if process.exceeded:
            self._kill(process.spec.key)
            return
        guests = dict(process.guests)
        used_by = (process.subreaper, *filter(None, guests.values()))
        if guests and over_limit(grant, used_by, folders):
            for key in guests:  # what was started beside it goes, not the process
                self._kill_guest(key)

    def _folders_of(self, process: TrackedProcess) -> dict[Path, int]:
        """Folder -> how many processes share what is in it."""
        workload = process.spec.workload
        sharers = sum(other.spec.workload == workload for other in self._table.alive())
        job = process.folder.parent
        return {process.folder: 1, **{job / name: max(1, sharers) for name in OF_THE_JOB}}


def _now() -> float:
    return time.monotonic()  # noqa: TID251 - the agent owns its own clock
