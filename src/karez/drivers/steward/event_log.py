"""Events of a node's workloads, numbered in one sequence. Not thread-safe."""

from collections.abc import Mapping
from typing import Any

from karez.core.processes import Event
from karez.core.workloads import WorkloadId

EVENT_LIMIT = 20_000
"""Events kept per workload; a control that falls further behind reads `processes` instead."""


class EventLog:
    """The newest events of each workload."""

    def __init__(self) -> None:
        """Start empty, at sequence number 0."""
        self.seq = 0
        self._events: dict[WorkloadId, list[Event]] = {}

    def add(
        self, workload: WorkloadId, *, key: str, kind: str, data: Mapping[str, Any], at: float
    ) -> None:
        """Append an event; the oldest ones beyond the limit are dropped."""
        self.seq += 1
        events = self._events.setdefault(workload, [])
        events.append(Event(seq=self.seq, at=at, key=key, type=kind, data=data))
        del events[:-EVENT_LIMIT]

    def after(self, workload: WorkloadId, seq: int) -> list[Event]:
        """Events of a workload with a higher sequence number, oldest first."""
        events = self._events.get(workload, [])
        first = len(events)
        while first and events[first - 1].seq > seq:
            first -= 1
        return events[first:]

    def drop(self, workload: WorkloadId) -> None:
        """Forget the events of a workload."""
        self._events.pop(workload, None)
