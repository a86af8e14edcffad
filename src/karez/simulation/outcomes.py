"""Results of a replay: what became of each job, and the amounts in use over time."""

from collections.abc import Mapping
from dataclasses import dataclass

from karez.core.devices import DeviceKind
from karez.simulation.trace_job import TraceJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one job."""

    job: TraceJob
    started_s: float
    """When the job first ran."""
    ended_s: float
    preemptions: int
    interruptions: int = 0
    """How often a node failed under the job."""

    @property
    def jct_s(self) -> float:
        """Job completion time: from arrival to end."""
        return self.ended_s - self.job.arrives_s

    @property
    def queued_s(self) -> float:
        """Time not spent running, restarts included."""
        return max(0.0, self.jct_s - self.job.runs_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Amounts in use from an instant on, of each kind in the kind's unit."""

    at_s: float
    amounts: Mapping[DeviceKind, int]
