"""The queue of one pool: pending workloads by equivalence class, each class in order.

Workloads of one class ask for the same (project, gang and priority): what holds for the first of
a class holds for all of it, so a long queue costs no more than its classes.
"""

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter

from karez.core.gangs import GangSpec
from karez.core.workloads import WorkloadId
from karez.scheduling.queue.order import PendingWorkload, SortKey

EquivalenceClass = tuple[str, GangSpec, int, float | None]
"""Project, gang, priority, and the seconds that a workload needs its nodes without a break (None:
it can leave them, or no maintenance is planned)."""
QueueEntry = tuple[SortKey, PendingWorkload]


@dataclass(slots=True)
class PendingQueue:
    """Pending workloads, sorted within their class."""

    by_class: dict[EquivalenceClass, list[QueueEntry]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self.by_class.values()))

    def __iter__(self) -> Iterator[PendingWorkload]:
        return (waiting for entries in self.by_class.values() for _, waiting in entries)

    def add(self, key: EquivalenceClass, rank: SortKey, waiting: PendingWorkload) -> None:
        """Insert a workload into its class, after those of the same rank."""
        insort(self.by_class.setdefault(key, []), (rank, waiting), key=itemgetter(0))

    def remove(self, ident: WorkloadId) -> bool:
        """Remove a workload; False if it is not in the queue."""
        for key, entries in self.by_class.items():
            kept = [entry for entry in entries if entry[1].id != ident]
            if len(kept) < len(entries):
                self.by_class[key] = kept
                return True
        return False

    def classes(self) -> Iterator[tuple[EquivalenceClass, list[QueueEntry]]]:
        """Classes that have a workload, with their entries in order."""
        return ((key, entries) for key, entries in self.by_class.items() if entries)
