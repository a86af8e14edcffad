"""A job of a trace: when it arrives, how long it runs and what it needs."""

from dataclasses import dataclass

from karez.core.gangs import GangSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceJob:
    """One job of a trace."""

    arrives_s: float
    """Seconds after the trace's first job."""
    runs_s: float
    devices: int
    """Number of devices, for the report and for traces that state no more."""
    project: str
    gang: GangSpec | None = None
    """The workers; None: `devices` devices of whatever kind the pool has."""
    sort: str = ""
    """Class of the job, as the trace calls it."""
    priority: int = 0
    preemptible: bool = True
    resumes: bool = True
    deadline_s: float | None = None
