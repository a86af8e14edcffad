"""Reads the jobs of a trace: Philly's columns, the DLRM trace's, or karez's own (own_trace)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from karez.core.devices import DeviceKind
from karez.core.errors import BadRequest
from karez.core.gangs import GangSpec
from karez.core.resource_requests import ResourceRequest
from karez.core.units import MILLI
from karez.simulation import own_trace
from karez.simulation.tables import MOST_SECONDS, Line, read_table
from karez.simulation.trace_job import TraceJob

MOST_DEVICES = 1_000_000
GIB = 1 << 30


def read_jobs(lines: Iterable[str], file: str) -> Sequence[TraceJob]:
    """The jobs in order of arrival; the heading tells which kind of trace it is.

    Raises:
        BadRequest: Unknown columns, a cell is out of bounds, or there is no job.
    """
    rows = iter(lines)
    heading = next(rows, "")
    heads = {head.strip() for head in heading.split(",")}
    table = (line for part in ([heading], rows) for line in part)
    for mark, columns, parse in _FORMATS:
        if mark in heads:
            jobs = [job for line in read_table(table, file, columns) for job in parse(line)]
            break
    else:
        raise BadRequest(
            problem=f"in {file}, line 1: these are not the columns of a known job trace",
            fix="Name timestamp,duration,num_gpus,cluster (Philly), the DLRM trace's columns, or "
            "arrive,runs,workers,each,... (docs/scheduling.md lists them).",
        )
    if not jobs:
        raise BadRequest(problem=f"the file {file} holds no job")
    start = min(job.arrives_s for job in jobs)
    return sorted(
        (replace(job, arrives_s=job.arrives_s - start) for job in jobs if job.devices or job.gang),
        key=lambda job: job.arrives_s,
    )


def _philly(line: Line) -> list[TraceJob]:
    return [
        TraceJob(
            arrives_s=line.instant("timestamp"),
            runs_s=line.number_in("duration", high=MOST_SECONDS),
            devices=line.whole("num_gpus", high=MOST_DEVICES),
            project=line.text("cluster"),
        )
    ]


_MONTH_S = 31 * 86_400.0
"""The DLRM trace covers 31 days. An instance without a creation time was there before; one without
a deletion time stays on."""


def _dlrm(line: Line) -> list[TraceJob]:
    """One instance: cores, GiB of memory and disk, and percent of a network card."""
    begins = line.number_in("creation_time", high=_MONTH_S * 2)
    ends = line.number_in("deletion_time", high=_MONTH_S * 2) or _MONTH_S
    request = _dlrm_request(line)
    return [
        TraceJob(
            arrives_s=begins,
            runs_s=max(1.0, ends - begins),
            devices=request.milli // MILLI if request.kind == DeviceKind.GPU else 0,
            project=line.text("app_name"),
            gang=GangSpec(each=(request,)),
            sort=line.text("role"),
            preemptible=False,
        )
    ]


def _dlrm_request(line: Line) -> ResourceRequest:
    gpus = line.whole("gpu_request", high=64)
    cpu_milli = round(line.number_in("cpu_request", high=1024) * MILLI)
    try:
        return ResourceRequest(
            kind=DeviceKind.GPU if gpus else DeviceKind.CPU,
            milli=gpus * MILLI if gpus else cpu_milli,
            cpu_milli=cpu_milli if gpus else 0,
            memory_bytes=round(line.number_in("memory_request", high=1e6) * GIB),
            storage_bytes=round(line.number_in("disk_request", high=1e6) * GIB),
            dpu_milli=round(line.number_in("rdma_request", high=6400) * 10),
        )
    except ValueError as error:
        raise line.problem("cpu_request", str(error)) from error


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
    ("arrive", own_trace.COLUMNS, own_trace.parse_line),
)
