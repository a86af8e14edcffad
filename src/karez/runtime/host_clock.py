"""The host's monotonic clock, and short pauses between two looks at what cannot wake a thread."""

import time


def monotonic_s() -> float:
    """Seconds of CLOCK_MONOTONIC, which every process of this host reads alike."""
    return time.monotonic()  # noqa: TID251 - the one place where a rank reads it


def pause(seconds: float) -> None:
    """Sleep before shared memory, a store or a device is read again: none wakes a thread."""
    time.sleep(seconds)  # noqa: TID251 - the one place where a rank sleeps


def thread_s() -> float:
    """Processor time of this thread."""
    return time.thread_time()
