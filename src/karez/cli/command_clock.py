"""The clock of commands."""

import time


def now() -> float:
    """Seconds of the host's monotonic clock."""
    return time.monotonic()  # noqa: TID251 - a command's own clock


def sleep(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)  # noqa: TID251 - a command's own clock
