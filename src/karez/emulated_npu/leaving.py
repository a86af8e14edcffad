"""At the end of a process, lets the threads of autograd come to rest first.

A thread that computed a backward pass still frees what it used when the pass has returned. For
that it takes Python's lock, since the emulated device is written in Python. A thread that waits for
the lock while Python ends is ended by force, and that aborts the process (1 of 10 under load).
"""

import atexit
import threading
from pathlib import Path

_TASKS = Path("/proc/self/task")
LOOKS = 1000
"""Looks, a millisecond apart; a thread that still computes then is no concern of this module."""
_CALM_LOOKS = 3


def settle_at_exit() -> None:
    """Wait for the threads at the end of this process, before Python ends."""
    atexit.register(_settle)


def _settle() -> None:
    calm, never = 0, threading.Event()
    for _ in range(LOOKS):
        calm = 0 if any(map(_runs, _TASKS.glob("*"))) else calm + 1
        if calm == _CALM_LOOKS:
            return
        never.wait(0.001)  # without Python's lock, which the threads need


def _runs(task: Path) -> bool:
    """Whether a thread of autograd computes now."""
    try:
        name, _, rest = (task / "stat").read_text().rpartition(") ")
    except OSError:
        return False  # it has ended
    return "pt_autograd" in name and not rest.startswith("S")
