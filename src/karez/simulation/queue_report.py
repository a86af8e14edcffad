"""The report of a queueing simulation, and the times in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from karez.core.devices import DeviceKind
from karez.simulation.outcomes import Outcome
from karez.simulation.trace_job import TraceJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Statistics of a time over many jobs, in seconds."""

    jobs: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTimes:
    """Times of the jobs of one project, or of one class."""

    name: str
    jct_s: Times
    queued_s: Times


@dataclass(frozen=True, slots=True, kw_only=True)
class KindUse:
    """The share of one kind that was in use."""

    kind: DeviceKind
    size: float
    """Capacity in devices, or in bytes of memory and storage."""
    mean_pct: float
    """Average over the whole replay."""
    peak_pct: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReport:
    """Results of one policy on a trace."""

    policy: str
    durations: str
    nodes: int
    devices: int
    jobs: int
    left_out: int
    """Number of jobs that do not fit even the empty pool."""
    unfinished: int
    """Number of jobs that had not ended when nothing could change any more."""
    jct_s: Times
    queued_s: Times
    preemptions: int
    interruptions: int
    """How often a node failed under a job."""
    resizes: int
    missed_deadlines: int
    utilisation_pct: float
    """Device-seconds of work done, in percent of those available until the last job ended."""
    log_sha256: str
    """Digest of the decisions, line by line; the same inputs give the same digest."""
    projects: tuple[GroupTimes, ...]
    classes: tuple[GroupTimes, ...]
    kinds: tuple[KindUse, ...]
    use: tuple[tuple[float, float], ...]
    """(day, accelerators in use on average) pairs, over the whole replay; cores if there are no
    accelerators."""
    reasons: tuple[tuple[str, float], ...]
    """Why jobs waited: (reason, share of the jobs asked about), the commonest first."""


def times_of(values: Sequence[float]) -> Times:
    """Statistics of at least one time."""
    p50, p90, p99 = (float(value) for value in np.percentile(values, (50, 90, 99)))
    return Times(
        jobs=len(values),
        mean=float(np.mean(values)),
        p50=p50,
        p90=p90,
        p99=p99,
        max=float(np.max(values)),
    )


def group_times(
    outcomes: Sequence[Outcome], key: Callable[[TraceJob], str]
) -> tuple[GroupTimes, ...]:
    """Times of each group of jobs that `key` names, by name."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(key(outcome.job), []).append(outcome)
    return tuple(
        GroupTimes(
            name=name,
            jct_s=times_of([outcome.jct_s for outcome in group]),
            queued_s=times_of([outcome.queued_s for outcome in group]),
        )
        for name, group in sorted(groups.items())
    )
