"""Decisions of the scheduler: start, preempt, resize, or leave a workload in the queue."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from karez.core.grants import Grant
from karez.core.workloads import WorkloadId


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Give a workload its devices now."""

    id: WorkloadId
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preempt:
    """Stop a workload and put it back into the queue."""

    id: WorkloadId
    by: WorkloadId | None
    """The workload that starts instead; None: its node is drained, or its project may spend no
    more."""
    lost_device_s: float
    """Device-seconds of work that the stop costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """Continue a workload with these grants: more workers, or fewer."""

    id: WorkloadId
    grants: tuple[Grant, ...]
    by: WorkloadId | None = None
    """The workload that gets the released devices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Leave a workload in the queue, with the reason."""

    id: WorkloadId
    reason: str


Action = Start | Preempt | Resize
Decision = Action | Wait


def preempted(decisions: Sequence[Action]) -> Iterator[WorkloadId]:
    """Workloads that these decisions stop without starting them elsewhere."""
    restarted = {act.id for act in decisions if isinstance(act, Start)}
    return (a.id for a in decisions if isinstance(a, Preempt) and a.id not in restarted)
