"""`karez what-if`: predict the effect of a change, on the live cloud or on a trace."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from karez.cli.client_options import Json, ProjectName, client
from karez.cli.inventory_files import lines_of, nodes_of
from karez.cli.offline.progress import bar
from karez.cli.options import takes
from karez.cli.output import json_out, table
from karez.cli.terminal import say
from karez.core.devices import DeviceKind
from karez.core.errors import BadRequest
from karez.core.explanations import WhatIf
from karez.core.gang_syntax import make_gang
from karez.core.gangs import Topology
from karez.core.nodes import NodeId
from karez.core.resource_syntax import parse_amount
from karez.core.units import parse_seconds, show_seconds

if TYPE_CHECKING:  # NumPy: only where a trace is replayed
    from karez.simulation.trace_what_if import TraceWhatIf

app = typer.Typer()
MAX_PROJECTS = 20
"""Number of projects printed in the terminal; `--json` has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIfOptions:
    """Options of `karez what-if`."""

    add: Annotated[int, typer.Option(help="Number of nodes to add.")] = 0
    like: Annotated[str, typer.Option(help="Existing node that the added nodes are copies of.")] = (
        ""
    )
    remove: Annotated[
        list[str] | None, typer.Option(help="Name of a node to remove. Repeatable.")
    ] = None
    quota: Annotated[
        list[str] | None,
        typer.Option(help="New quota of a project, as PROJECT:KIND=COUNT. Repeatable."),
    ] = None
    workers: Annotated[
        str, typer.Option(help="Submit a hypothetical gang with so many workers: 4, or MIN:WANT.")
    ] = ""
    each: Annotated[
        list[str] | None,
        typer.Option(
            help="Resources of one worker of the gang, such as npu=1,memory=2GiB. Repeat for "
            "alternatives."
        ),
    ] = None
    topology: Annotated[
        Topology, typer.Option(help="How the gang's workers are placed in the topology.")
    ] = Topology.ANY
    project: ProjectName = "default"
    priority: Annotated[int, typer.Option(help="Priority of the hypothetical gang.")] = 0
    trace: Annotated[
        Path | None, typer.Option(help="Replay the jobs of this trace instead of the live cloud.")
    ] = None
    inventory: Annotated[
        Path | None,
        typer.Option(
            help="With --trace: nodes of the pool, as a file or the name given to "
            "`karez pool import`."
        ),
    ] = None
    runs: Annotated[
        str, typer.Option(help="With --trace: how long the hypothetical gang runs.")
    ] = "1h"


@app.command("what-if")
@takes(WhatIfOptions)
def what_if(options: WhatIfOptions, as_json: Json = False) -> None:
    """Predict the effect of other nodes, quotas or jobs on every workload. Nothing is changed.

    Example: karez what-if --remove node-3 --workers 8 --each npu=8

    With --trace both are replayed: karez what-if --trace jobs.csv --inventory lab --add 4 --like n0
    """
    try:
        question = _question(options)
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error
    if options.trace is not None:
        found = _replay(options.trace, options, question)
        if as_json:
            json_out(found)
        else:
            _show_replay(found)
        return
    result = client().what_if(question)
    if as_json:
        json_out(result)
        return
    table(
        ("workload", "project", "now", "then", "because"),
        [(e.id, e.project, e.before, e.after, e.reason) for e in result.effects],
        empty="Nothing would be different.",
    )
    say(f"waiting: {result.waiting_before} now, {result.waiting_after} then")


def _question(options: WhatIfOptions) -> WhatIf:
    """Parse the options. Raises ValueError."""
    return WhatIf(
        add=options.add,
        like=NodeId(options.like) if options.like else None,
        remove=tuple(NodeId(node) for node in options.remove or ()),
        quota=_quotas(options.quota or []),
        submit=(
            make_gang(options.workers, options.each, options.topology) if options.workers else None
        ),
        project=options.project,
        priority=options.priority,
    )


def _replay(trace: Path, options: WhatIfOptions, question: WhatIf) -> "TraceWhatIf":
    """Replay a trace with and without the change. Raises BadRequest."""
    from karez.simulation import workloads  # noqa: PLC0415 - NumPy, only here
    from karez.simulation.trace_what_if import trace_what_if  # noqa: PLC0415 - NumPy, only here

    if options.inventory is None:
        raise BadRequest(problem="--trace needs nodes", fix="Say --inventory FILE or NAME.")
    nodes = nodes_of(options.inventory)
    with lines_of(trace) as lines:
        jobs = workloads.read_jobs(lines, str(trace))
    try:
        runs_s = parse_seconds(options.runs)
        with bar("jobs ended, twice", 2 * len(jobs)) as progress:
            return trace_what_if(nodes, jobs, question, runs_s=runs_s, progress=progress)
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error


def _show_replay(found: "TraceWhatIf") -> None:
    table(
        ("project", "jobs", "mean wait now", "then", "mean completion now", "then"),
        [
            (
                project.project,
                project.jobs,
                show_seconds(project.queued_before_s),
                show_seconds(project.queued_after_s),
                show_seconds(project.jct_before_s),
                show_seconds(project.jct_after_s),
            )
            for project in found.projects[:MAX_PROJECTS]
        ],
        empty="no project has jobs that end",
    )
    say(
        f"all: {show_seconds(found.jct_before_s)} to completion now, "
        f"{show_seconds(found.jct_after_s)} then; {found.utilisation_before_pct:.1f}% of device "
        f"time worked now, {found.utilisation_after_pct:.1f}% then"
    )
    if found.left_out_after != found.left_out_before:
        say(f"never fit: {found.left_out_before} now, {found.left_out_after} then")
    if found.asked_jct_s is not None:
        say(f"the hypothetical gang would take {show_seconds(found.asked_jct_s)}")


def _quotas(texts: list[str]) -> dict[str, dict[DeviceKind, int]]:
    quotas: dict[str, dict[DeviceKind, int]] = {}
    for text in texts:
        name, colon, rest = text.partition(":")
        kind, equals, count = rest.partition("=")
        if not colon or not equals:
            raise ValueError(f"--quota {text!r} should read like lab:npu=8")
        quotas.setdefault(name, {})[DeviceKind(kind)] = parse_amount(DeviceKind(kind), count)
    return quotas


APPS = {"what-if": app}
