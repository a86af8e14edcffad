"""Reads the jobs of a trace: Philly's columns, the DLRM trace's, or our own.

Our own CSV, one workload a line; only `arrive` and `runs` must be there:

    arrive     seconds, or a date and time
    runs       seconds with all the workers it wants, at speed 1
    project    default: default
    class      for the report: any word
    workers    how many, or MIN:WANT, or MIN:WANT:MAX; default 1
    each       what one worker needs, as in `--each`; alternatives are separated by `;`
               (npu=1,cpu=8,memory=32GiB;gpu=1,speed=0.8 needs quotes in CSV); default cpu=1
    topology   any, prefer:supernode, require:supernode or spread
    on, off    nodes or label=value, separated by `;`
    roles      NAME:COUNT:NEED, separated by `;`
    priority   a whole number; default 0
    preemptible, resumes   yes or no; default yes
    deadline   seconds after it came
"""

import datetime
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from karez.core.devices import DeviceKind
from karez.core.errors import BadRequest
from karez.core.gangs import GangRole, GangSpec, Topology
from karez.core.node_affinity import NodeAffinity
from karez.core.resource_requests import ResourceRequest
from karez.core.resource_syntax import parse_resource_request
from karez.core.units import MILLI
from karez.simulation.tables import Line, read_table

MOST_DEVICES = 1_000_000
MOST_SECONDS = 1e9
MOST_INSTANT = 1e11
"""UTC epoch seconds in the year 5138: beyond that lies a slip of the pen."""
GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceJob:
    """One job of a trace."""

    arrives_s: float
    """Seconds after the trace's first job."""
    runs_s: float
    devices: int
    """For the report, and for traces that say no more."""
    project: str
    gang: GangSpec | None = None
    """None: so many devices of whatever kind the pool has."""
    sort: str = ""
    """Its class, in the trace's own words."""
    priority: int = 0
    preemptible: bool = True
    resumes: bool = True
    deadline_s: float | None = None


def read_jobs(lines: Iterable[str], file: str) -> Sequence[TraceJob]:
    """In order of arrival; the heading says which kind of trace it is.

    Raises:
        BadRequest: Unknown columns, a cell is out of bounds, or there is no job.
    """
    rows = iter(lines)
    first = next(rows, "")
    heads = {head.strip() for head in first.split(",")}
    both = (line for part in ([first], rows) for line in part)
    for mark, columns, parse in _FORMATS:
        if mark in heads:
            found = [job for line in read_table(both, file, columns) for job in parse(line)]
            break
    else:
        raise BadRequest(
            problem=f"in {file}, line 1: these are the columns of no trace that is known",
            fix="Name timestamp,duration,num_gpus,cluster (Philly), the DLRM trace's columns, or "
            "arrive,runs,workers,each,... (docs/scheduling.md lists them).",
        )
    if not found:
        raise BadRequest(problem=f"the file {file} holds no job")
    start = min(job.arrives_s for job in found)
    return sorted(
        (_shifted(job, start) for job in found if job.devices or job.gang),
        key=lambda job: job.arrives_s,
    )


def _shifted(job: TraceJob, start: float) -> TraceJob:
    return TraceJob(
        arrives_s=job.arrives_s - start,
        runs_s=job.runs_s,
        devices=job.devices,
        project=job.project,
        gang=job.gang,
        sort=job.sort,
        priority=job.priority,
        preemptible=job.preemptible,
        resumes=job.resumes,
        deadline_s=job.deadline_s,
    )


def _philly(line: Line) -> list[TraceJob]:
    return [
        TraceJob(
            arrives_s=instant(line, "timestamp"),
            runs_s=line.number_in("duration", high=MOST_SECONDS),
            devices=line.whole("num_gpus", high=MOST_DEVICES),
            project=line.text("cluster"),
        )
    ]


_MONTH_S = 31 * 86_400.0
"""The DLRM trace covers 31 days; what has no time of its own was there before, or stays on."""


def _dlrm(line: Line) -> list[TraceJob]:
    """One instance: cores, GiB of memory and disk, and percent of a network card."""
    begins = line.number_in("creation_time", high=_MONTH_S * 2)
    ends = line.number_in("deletion_time", high=_MONTH_S * 2) or _MONTH_S
    gpus = line.whole("gpu_request", high=64)
    cpu = round(line.number_in("cpu_request", high=1024) * MILLI)
    try:
        need = ResourceRequest(
            kind=DeviceKind.GPU if gpus else DeviceKind.CPU,
            milli=gpus * MILLI if gpus else cpu,
            cpu_milli=cpu if gpus else 0,
            memory_bytes=round(line.number_in("memory_request", high=1e6) * GIB),
            storage_bytes=round(line.number_in("disk_request", high=1e6) * GIB),
            dpu_milli=round(line.number_in("rdma_request", high=6400) * 10),
        )
    except ValueError as error:
        raise line.problem("cpu_request", str(error)) from error
    return [
        TraceJob(
            arrives_s=begins,
            runs_s=max(1.0, ends - begins),
            devices=gpus,
            project=line.text("app_name"),
            gang=GangSpec(each=(need,)),
            sort=line.text("role"),
            preemptible=False,
        )
    ]


def _own(line: Line) -> list[TraceJob]:
    gang = _gang(line)
    return [
        TraceJob(
            arrives_s=instant(line, "arrive"),
            runs_s=line.number_in("runs", high=MOST_SECONDS),
            devices=gang.want * gang.each[0].milli // MILLI,
            project=line.text("project") or "default",
            gang=gang,
            sort=line.text("class"),
            priority=line.whole("priority", low=-1_000_000, high=1_000_000),
            preemptible=_yes(line, "preemptible"),
            resumes=_yes(line, "resumes"),
            deadline_s=line.number_in("deadline", high=MOST_SECONDS) or None,
        )
    ]


def _gang(line: Line) -> GangSpec:
    def part(column: str, parse: Callable[[str], Any], default: str = "") -> Any:
        try:
            return parse(line.text(column).strip() or default)
        except ValueError as error:
            raise line.problem(column, str(error)) from error

    low, want, most = part("workers", _workers, "1")
    each = part(
        "each", lambda text: tuple(parse_resource_request(one) for one in text.split(";")), "cpu=1"
    )
    roles = part("roles", lambda text: tuple(_role(one) for one in text.split(";") if one))
    among = part("on", lambda text: NodeAffinity(on=_names(text), off=_names(line.text("off"))))
    topology = part("topology", Topology, "any")

    def gang(_: str) -> GangSpec:
        return GangSpec(
            min=low, want=want, max=most, each=each, topology=topology, among=among, roles=roles
        )

    found: GangSpec = part("workers", gang)
    return found


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(";") if name.strip())


def _workers(text: str) -> tuple[int, int, int | None]:
    counts = [int(number) for number in text.split(":")]
    if len(counts) > 3:
        raise ValueError(f"{text!r} should be a number, MIN:WANT or MIN:WANT:MAX")
    return counts[0], counts[min(1, len(counts) - 1)], counts[2] if len(counts) > 2 else None


def _role(text: str) -> GangRole:
    name, _, rest = text.strip().partition(":")
    count, _, need = rest.partition(":")
    return GangRole(name=name, workers=int(count), each=(parse_resource_request(need),))


def _yes(line: Line, column: str) -> bool:
    word = line.text(column).strip().lower() or "yes"
    if word not in ("yes", "no", "true", "false", "1", "0"):
        raise line.problem(column, f"{word[:40]!r} is not yes or no")
    return word in ("yes", "true", "1")


def instant(line: Line, column: str) -> float:
    """Seconds, or a date and time, as seconds. Raises BadRequest."""
    text = line.text(column).strip()
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        if not 0 <= seconds <= MOST_INSTANT:
            raise line.problem(column, f"{text[:40]} is not between 0 and {MOST_INSTANT:g}")
        return seconds
    try:
        moment = datetime.datetime.fromisoformat(text[:26])
    except ValueError:
        raise line.problem(column, f"{text[:40]!r} is no date and no number") from None
    return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()


_FORMATS: tuple[tuple[str, tuple[str, ...], Callable[[Line], list[TraceJob]]], ...] = (
    ("timestamp", ("timestamp", "duration", "num_gpus", "cluster"), _philly),
    (
        "instance_sn",
        (
            "role",
            "app_name",
            "cpu_request",
            "gpu_request",
            "rdma_request",
            "memory_request",
            "disk_request",
            "creation_time",
            "deletion_time",
        ),
        _dlrm,
    ),
    ("arrive", ("arrive", "runs"), _own),
)
