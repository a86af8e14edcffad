"""Metrics of control: their names, labels and meaning, and the port that records them."""

from dataclasses import dataclass
from typing import Final, Protocol

SCHEDULING_TIME: Final = "karez_scheduling_seconds"
QUEUE_TIME: Final = "karez_queue_seconds"
START_TIME: Final = "karez_start_seconds"
RECOVERY_PHASE: Final = "karez_recovery_phase_seconds"
RECOVERIES: Final = "karez_recoveries_total"
ENDED: Final = "karez_jobs_ended_total"
REFUSED: Final = "karez_messages_refused_total"
CONTROLLER_STEP: Final = "karez_controller_step_seconds"
CONTROLLER_FAILURES: Final = "karez_controller_failures_total"
API_TIME: Final = "karez_api_seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """One metric: a histogram of seconds, or a counter."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def is_counter(self) -> bool:
        """Whether it counts events; else it is a histogram of seconds."""
        return self.name.endswith("_total")


METRICS: Final = (
    MetricSpec(name=SCHEDULING_TIME, help="Time of a pass of the scheduler"),
    MetricSpec(
        name=QUEUE_TIME,
        help="Time from the submission of a workload to its first devices",
        labels=("kind", "priority"),
    ),
    MetricSpec(
        name=START_TIME, help="Time from the devices of a job to its first step", labels=("kind",)
    ),
    MetricSpec(
        name=RECOVERY_PHASE,
        help="Time of a part of a recovery (confirm, decide, restore, resume), and of all (total)",
        labels=("phase", "rung"),
    ),
    MetricSpec(
        name=RECOVERIES, help="Completed recoveries by kind of fault", labels=("code", "rung")
    ),
    MetricSpec(name=ENDED, help="Ends of runs of jobs, by reason", labels=("reason",)),
    MetricSpec(
        name=REFUSED,
        help="Messages that control could not read, or that ranks could not",
        labels=("direction",),
    ),
    MetricSpec(name=CONTROLLER_STEP, help="Time of a step of a controller", labels=("pace",)),
    MetricSpec(
        name=CONTROLLER_FAILURES,
        help="Steps of controllers that raised an error, by its type",
        labels=("error",),
    ),
    MetricSpec(
        name=API_TIME,
        help="Time of a request to the API",
        labels=("method", "route", "status"),
    ),
)
"""All metrics that are recorded as things happen. Gauges are read from the store when asked for."""


class Metrics(Protocol):
    """Records what happens. Any thread may call it."""

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Record a time under one of METRICS."""
        ...

    def count(self, name: str, **labels: str) -> None:
        """Count an event under one of METRICS."""
        ...


class NoMetrics(Metrics):
    """Records nothing."""

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Do nothing."""

    def count(self, name: str, **labels: str) -> None:
        """Do nothing."""
