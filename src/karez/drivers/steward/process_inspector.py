"""Samples processes from outside, and injects faults into them."""

import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from karez.core import environment
from karez.core.fault_injection import FaultKind
from karez.core.processes import ProcessInfo, ProcessSample
from karez.transport.rank_status import read_rank_status, status_path

SLOW_S = 3.0
"""Seconds for which a process is slowed down."""
TURN_S = 0.02
"""Seconds that a slowed process runs, then is stopped, in turn."""


def sample_process(info: ProcessInfo, snapshot: Path, *, stacks: bool) -> ProcessSample:
    """Sample a process from the kernel and its status file; the process need not answer."""
    status = read_rank_status(status_path(snapshot))
    try:
        process = psutil.Process(info.pid)
        state: str = process.status()
        times = process.cpu_times()
        if stacks and status is not None and state != psutil.STATUS_STOPPED:
            process.send_signal(signal.SIGUSR2)  # faulthandler writes them to its output
        cpu_s = times.user + times.system
    except psutil.Error:
        state, cpu_s = "gone", 0.0
    if status is None:
        return ProcessSample(key=info.key, state=state, cpu_s=cpu_s)
    return ProcessSample(
        key=info.key,
        state=state,
        cpu_s=cpu_s,
        activity=status.activity.word,
        step=status.step,
        generation=status.generation,
        activity_s=time.monotonic() - status.since,  # noqa: TID251 - the clock of the status file
    )


def end_strays(steward: str) -> None:
    """Kill the processes that an earlier agent at this socket has left."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(environment.STEWARD) == steward:
                process.kill()
        except psutil.Error:
            continue  # it has ended, or belongs to somebody else


def inject_fault(processes: Sequence[ProcessInfo], what: FaultKind) -> None:
    """Kill, stop or slow processes."""
    for info in processes:
        if what == FaultKind.SLOW:
            threading.Thread(target=_slow, args=(info.pid,), daemon=True).start()
        else:
            _send(info.pid, signal.SIGKILL if what == FaultKind.KILL else signal.SIGSTOP)


def _slow(pid: int) -> None:
    pause = threading.Event()
    for _ in range(int(SLOW_S / (2 * TURN_S))):
        _send(pid, signal.SIGSTOP)
        pause.wait(TURN_S)
        if not _send(pid, signal.SIGCONT):
            return
        pause.wait(TURN_S)


def _send(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
