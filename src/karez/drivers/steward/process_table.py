"""The processes of a node, and the events that control polls."""

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from karez.core.messages.reports import AgentReport, CommitReport, ExitReport, StartedReport
from karez.core.messages.wire import content, encode
from karez.core.processes import Cursors, Event, ProcessInfo, ProcessSpec
from karez.core.workloads import WorkloadId
from karez.drivers.steward.event_log import COMMITS_TOGETHER_S, EventLog
from karez.drivers.steward.message_stream import MessageStream
from karez.drivers.steward.resource_limits import OVER_CODE

PURGE_S = 10.0
"""Seconds to wait for the processes of a purged workload to end."""


@dataclass(slots=True, kw_only=True)
class TrackedProcess:
    """A process that was started here, running or ended."""

    spec: ProcessSpec
    folder: Path
    info: ProcessInfo
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    """What it shows to be taken for itself."""
    stream: MessageStream = field(default_factory=MessageStream)
    subreaper: int = 0
    """Id of the process below which it and all that it started are."""
    server: str = ""
    """The fork server that it was asked of: its Python; empty until then."""
    environment: Path | None = None
    """The folder of its environment."""
    is_doomed: bool = False
    """Whether it was to be killed, perhaps before it has started."""
    guests: dict[str, int] = field(default_factory=dict)
    """Shells beside it: their keys -> the ids of their subreapers, 0 before they run."""
    exceeded: str = ""
    """What it used beyond its grant, once it is being ended for that."""


class ProcessTable:
    """Processes by key, and the events of their workloads, under one lock."""

    def __init__(self) -> None:
        """Start empty."""
        self._changed = threading.Condition(threading.RLock())
        self._processes: dict[str, TrackedProcess] = {}
        self._events = EventLog()

    def add(self, spec: ProcessSpec, folder: Path) -> None:
        """Track a process that is about to start."""
        info = ProcessInfo(
            key=spec.key,
            workload=spec.workload,
            rank=spec.rank,
            epoch=spec.epoch,
            pid=0,
            alive=True,
            grant=spec.grant,
        )
        with self._changed:
            self._processes[spec.key] = TrackedProcess(spec=spec, folder=folder, info=info)

    def get(self, key: str) -> TrackedProcess | None:
        """The process of a key, if it is tracked."""
        with self._changed:
            return self._processes.get(key)

    def tracked(self) -> list[TrackedProcess]:
        """All processes, ended ones included until their workload is removed."""
        with self._changed:
            return list(self._processes.values())

    def alive(self) -> list[TrackedProcess]:
        """Processes that have not ended, those still starting included."""
        return [process for process in self.tracked() if process.info.alive]

    def ranks(self, workload: WorkloadId) -> list[ProcessInfo]:
        """Living ranks of a workload."""
        infos = [process.info for process in self.alive()]
        return [i for i in infos if i.workload == workload and i.pid and i.rank >= 0]

    def keys(self, workload: WorkloadId) -> list[str]:
        """Keys of a workload's processes."""
        return [p.spec.key for p in self.tracked() if p.spec.workload == workload]

    def remove(self, workload: WorkloadId, keys: Sequence[str]) -> None:
        """Wait until processes have ended, then forget them and their workload's events."""
        with self._changed:
            self._changed.wait_for(lambda: not self._any_alive(keys), timeout=PURGE_S)
            for key in keys:
                self._processes.pop(key, None)
            self._events.drop(workload)

    def started(self, key: str, pid: int, subreaper: int) -> None:
        """Record that a process runs."""
        with self._changed:
            if key in self._processes:
                self._processes[key].subreaper = subreaper
        self._change(key, pid=pid)
        self._publish(key, StartedReport(pid=pid))

    def ended(self, key: str, code: int, error: str) -> None:
        """Record that a process has ended, for exceeding its grant if that was the reason."""
        process = self.get(key)
        if process is not None and process.exceeded:
            code, error = OVER_CODE, process.exceeded
        self._change(key, alive=False, exit_code=code, error=error)
        self._publish(key, ExitReport(code=code, error=error))

    def publish(self, key: str, kind: str, data: Mapping[str, Any]) -> None:
        """Add an event of a process, and wake those who poll."""
        now_s = _now_s()
        with self._changed:
            process = self._processes.get(key)
            if process is None:
                return
            waits_s = 0.0 if _is_urgent(kind, data, process.info) else COMMITS_TOGETHER_S
            messages = {**process.info.last_messages, kind: data}
            process.info = replace(process.info, last_messages=messages)
            at = time.time()  # noqa: TID251 - the agent stamps what it sees
            self._events.add(
                process.spec.workload, key=key, kind=kind, data=data, at=at, due_s=now_s + waits_s
            )
            self._changed.notify_all()

    def _publish(self, key: str, report: AgentReport) -> None:
        self.publish(key, report.TYPE, content(encode(report)))

    def wake(self, change: Callable[[], None]) -> None:
        """Make a change that ends the wait of those who poll."""
        with self._changed:
            change()
            self._changed.notify_all()

    def wait(self, cursors: Cursors, wait_s: float) -> tuple[Event, ...]:
        """Events of these workloads that are not known yet, waiting up to `wait_s` for one."""
        deadline_s = _now_s() + wait_s
        with self._changed:
            while True:
                due_s = self._events.due_s(cursors)
                left_s = (deadline_s if due_s is None else min(deadline_s, due_s)) - _now_s()
                if left_s <= 0:
                    return self._events.after(cursors)
                self._changed.wait(left_s)

    def _any_alive(self, keys: Sequence[str]) -> bool:
        return any(self._processes[k].info.alive for k in keys if k in self._processes)

    def _change(self, key: str, **fields: Any) -> None:
        with self._changed:
            if key in self._processes:
                process = self._processes[key]
                process.info = replace(process.info, **fields)


def _now_s() -> float:
    return time.monotonic()  # noqa: TID251 - the agent times its own polls


def _is_urgent(kind: str, data: Mapping[str, Any], info: ProcessInfo) -> bool:
    """Whether control should know at once: of all but steps, and of the first of a generation."""
    commit = CommitReport.TYPE
    before = info.last_messages.get(commit, {})
    return kind != commit or data.get("generation") != before.get("generation")
