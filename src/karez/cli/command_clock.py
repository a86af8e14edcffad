"""The clock of commands."""

import time


def now() -> float:
    """Seconds of the host's monotonic clock."""
    return time.monotonic()  # noqa: TID251 - a command's own clock


def sleep(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)  # noqa: TID251 - a command's own clock


def today() -> str:
    """Today's date in UTC, as 2026-01-31."""
    return time.strftime("%Y-%m-%d", time.gmtime())
