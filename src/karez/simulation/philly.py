"""Reads jobs in the columns of the Philly trace: timestamp, duration, num_gpus, cluster."""

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from karez.core.errors import BadRequest
from karez.simulation.tables import Line, read_table

MOST_DEVICES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceJob:
    """One job of a trace."""

    arrives_s: float
    """Seconds after the trace's first job."""
    runs_s: float
    devices: int
    project: str


def read_jobs(lines: Iterable[str], file: str) -> Sequence[TraceJob]:
    """In order of arrival. `timestamp` is seconds, or a date and time.

    Raises:
        BadRequest: A cell is out of bounds, or there is no job.
    """
    columns = ("timestamp", "duration", "num_gpus", "cluster")
    found = [
        (
            _instant(line),
            line.number_in("duration", high=1e9),
            line.whole("num_gpus", high=MOST_DEVICES),
            line.text("cluster"),
        )
        for line in read_table(lines, file, columns)
    ]
    if not found:
        raise BadRequest(problem=f"the file {file} holds no job")
    first = min(row[0] for row in found)
    jobs = [
        TraceJob(arrives_s=at - first, runs_s=runs_s, devices=devices, project=project)
        for at, runs_s, devices, project in found
        if devices
    ]
    return sorted(jobs, key=lambda job: job.arrives_s)


def _instant(line: Line) -> float:
    text = line.text("timestamp").strip()
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise line.problem("timestamp", f"{text[:40]!r} is no date and no number") from None
    return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()
