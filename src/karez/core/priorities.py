"""Priorities of workloads. Pure."""

MAX_PRIORITY = 1_000_000
SERVICE_PRIORITY = 10
"""Priority of a service that names none: whoever waits for an answer comes before a batch."""


def check_priority(priority: int) -> None:
    """Raise ValueError for a priority beyond what every store keeps."""
    if abs(priority) > MAX_PRIORITY:
        raise ValueError(f"a priority is between -{MAX_PRIORITY:,} and {MAX_PRIORITY:,}")
