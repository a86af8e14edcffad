"""The host's monotonic clock, and short pauses between two looks at what cannot wake a thread."""

import time


def monotonic_s() -> float:
    """Seconds of CLOCK_MONOTONIC, which every process of this host reads alike."""
    return time.monotonic()


def epoch_s() -> float:
    """UTC epoch seconds of the host's clock, for a time that a user has named."""
    return time.time()


def pause(seconds: float) -> None:
    """Sleep before shared memory, a store or a device is read again: none wakes a thread."""
    time.sleep(seconds)


def thread_s() -> float:
    """Processor time of this thread."""
    return time.thread_time()
