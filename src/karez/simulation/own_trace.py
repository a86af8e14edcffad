"""Reads karez's own CSV of jobs, one workload per line; only `arrive` and `runs` are required.

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
deadline   seconds after its arrival
"""

from collections.abc import Callable
from typing import Any

from karez.core.gangs import GangRole, GangSpec, Topology
from karez.core.node_affinity import NodeAffinity
from karez.core.resource_requests import ResourceRequest
from karez.core.resource_syntax import parse_resource_request
from karez.core.units import MILLI
from karez.simulation.tables import MOST_SECONDS, Line
from karez.simulation.trace_job import TraceJob

COLUMNS = ("arrive", "runs")


def parse_line(line: Line) -> list[TraceJob]:
    """The job of one line. Raises BadRequest naming the column."""
    gang = _gang(line)
    return [
        TraceJob(
            arrives_s=line.instant("arrive"),
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
    each = part("each", _alternatives, "cpu=1")
    roles = part("roles", lambda text: tuple(_role(role) for role in text.split(";") if role))
    among = part("on", lambda text: NodeAffinity(on=_names(text), off=_names(line.text("off"))))
    topology = part("topology", Topology, "any")

    def make_gang(_: str) -> GangSpec:
        return GangSpec(
            min=low, want=want, max=most, each=each, topology=topology, among=among, roles=roles
        )

    gang: GangSpec = part("workers", make_gang)
    return gang


def _alternatives(text: str) -> tuple[ResourceRequest, ...]:
    return tuple(parse_resource_request(request) for request in text.split(";"))


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
        raise line.problem(column, f"{word[:40]!r} should be yes or no")
    return word in ("yes", "true", "1")
