"""Protocol of the store of jobs' history."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from karez.core.receipts import Receipt
from karez.core.recovery import CheckpointPart, FaultReport, Transition
from karez.core.usage import MetricRow


class HistoryStore(Protocol):
    """History of jobs: recoveries, steps, checkpoints, incidents."""

    def add_receipt(self, receipt: Receipt) -> None:
        """Record a recovery."""
        ...

    def receipts(self, job: str) -> Sequence[Receipt]:
        """List the receipts of a job, oldest first; of all jobs if `job` is empty."""
        ...

    def receipts_since(self, at: float) -> Sequence[Receipt]:
        """List the receipts of all jobs of faults that were detected after an instant."""
        ...

    def add_metrics(self, job: str, rows: Sequence[MetricRow]) -> None:
        """Record steps; a step done again replaces the older record of that rank."""
        ...

    def metrics(self, job: str, *, after: int = -1) -> Sequence[MetricRow]:
        """List the steps after `after`, in order of step and rank."""
        ...

    def add_checkpoint(self, job: str, part: CheckpointPart) -> None:
        """Record one rank's part of a stored checkpoint."""
        ...

    def newest_checkpoint(
        self, job: str, seats: Sequence[int]
    ) -> Mapping[int, Sequence[CheckpointPart]]:
        """Return the parts that each rank of `seats` loads, of the newest step usable by all.

        A step counts once all ranks of its time have stored it. A rank that stored no part of it
        loads what the ranks have in common, if a part holds that. Where every part is a shard,
        ranks other than those that stored the shards get all of them.
        """
        ...

    def add_transition(self, job: str, transition: Transition) -> None:
        """Append to the log of a job's recoveries."""
        ...

    def transitions(self, job: str, *, newest: int = 1000) -> Sequence[Transition]:
        """List the newest entries of the log of a job's recoveries, oldest first."""
        ...

    def add_incident(self, report: FaultReport) -> None:
        """Record a fault report about a node."""
        ...

    def incidents(self, *, since: float, node: str = "") -> Sequence[FaultReport]:
        """List fault reports after an instant, of one node or of all, oldest first."""
        ...
