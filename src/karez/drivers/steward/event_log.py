"""Events of a node's workloads, numbered in one sequence. Not thread-safe."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from karez.core.processes import Cursors, Event
from karez.core.workloads import WorkloadId

EVENT_LIMIT = 20_000
"""Events kept per workload; a control that falls further behind reads `processes` instead."""
COMMITS_TOGETHER_S = 0.1
"""For so long the steps of a training are collected before control is told of them: to tell it of
each costs more than a short step does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    event: Event
    due_s: float
    """When control should be told of it, by the clock of `add`."""


class EventLog:
    """The newest events of each workload."""

    def __init__(self) -> None:
        """Start empty, at sequence number 0."""
        self.seq = 0
        self._entries: dict[WorkloadId, list[_Entry]] = {}

    def add(
        self,
        workload: WorkloadId,
        *,
        key: str,
        kind: str,
        data: Mapping[str, Any],
        at: float,
        due_s: float,
    ) -> None:
        """Append an event; the oldest ones beyond the limit are dropped."""
        self.seq += 1
        event = Event(seq=self.seq, at=at, workload=workload, key=key, type=kind, data=data)
        entries = self._entries.setdefault(workload, [])
        entries.append(_Entry(event=event, due_s=due_s))
        del entries[:-EVENT_LIMIT]

    def after(self, cursors: Cursors) -> tuple[Event, ...]:
        """Events of these workloads that are not known yet, oldest first."""
        entries = (entry for of_one in cursors.items() for entry in self._after(*of_one))
        return tuple(sorted((entry.event for entry in entries), key=lambda event: event.seq))

    def due_s(self, cursors: Cursors) -> float | None:
        """When control should be told of what it does not know; None: there is nothing."""
        entries = (entry for of_one in cursors.items() for entry in self._after(*of_one))
        return min((entry.due_s for entry in entries), default=None)

    def drop(self, workload: WorkloadId) -> None:
        """Forget the events of a workload."""
        self._entries.pop(workload, None)

    def _after(self, workload: WorkloadId, seq: int) -> Iterator[_Entry]:
        """Entries with a higher sequence number, newest first."""
        for entry in reversed(self._entries.get(workload, [])):
            if entry.event.seq <= seq:
                return
            yield entry
