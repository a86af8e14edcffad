"""`karez what-if`."""

from pathlib import Path
from typing import Annotated

import typer

from karez.cli.client_options import Json, ProjectName, client
from karez.cli.inventory_files import lines_of, nodes_of
from karez.cli.offline.progress import bar
from karez.cli.output import json_out, table
from karez.core.errors import BadRequest
from karez.core.explanations import WhatIf
from karez.core.gang_syntax import make_gang
from karez.core.resources import DeviceKind, NodeId, parse_amount
from karez.core.units import parse_seconds, show_seconds
from karez.core.workloads import Topology

app = typer.Typer()


@app.command("what-if")
def what_if(
    add: Annotated[int, typer.Option(help="So many new nodes.")] = 0,
    like: Annotated[str, typer.Option(help="The node that new ones are like.")] = "",
    remove: Annotated[list[str] | None, typer.Option(help="A node that goes; repeat.")] = None,
    quota: Annotated[list[str] | None, typer.Option(help="PROJECT:KIND=COUNT; repeat.")] = None,
    workers: Annotated[str, typer.Option(help="Submit a gang: 4, or 1:4.")] = "",
    each: Annotated[list[str] | None, typer.Option(help="Per worker: npu=1,memory=2GiB.")] = None,
    topology: Annotated[Topology, typer.Option(help="Where workers stand.")] = Topology.ANY,
    project: ProjectName = "default",
    priority: Annotated[int, typer.Option(help="Of the gang.")] = 0,
    trace: Annotated[
        Path | None, typer.Option(help="Ask about a trace's jobs instead of the live cloud.")
    ] = None,
    inventory: Annotated[
        Path | None, typer.Option(help="With --trace: its nodes, a file or an imported name.")
    ] = None,
    runs: Annotated[str, typer.Option(help="With --trace: how long the gang runs.")] = "1h",
    as_json: Json = False,
) -> None:
    """Say what would change, and for whom, if nodes, quotas or the queue were different.

    Nothing is changed. Example: karez what-if --remove node-3 --workers 8 --each npu=8

    With --trace both are replayed: karez what-if --trace jobs.csv --inventory lab --add 4 --like n0
    """
    try:
        question = WhatIf(
            add=add,
            like=NodeId(like) if like else None,
            remove=tuple(NodeId(node) for node in remove or ()),
            quota=_quotas(quota or []),
            submit=make_gang(workers, each, topology) if workers else None,
            project=project,
            priority=priority,
        )
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error
    if trace is not None:
        _about_trace(trace, inventory, question, runs, as_json=as_json)
        return
    outlook = client().what_if(question)
    if as_json:
        json_out(outlook)
        return
    table(
        ("workload", "project", "now", "then", "because"),
        [(e.id, e.project, e.before, e.after, e.reason) for e in outlook.effects],
        empty="Nothing would be different.",
    )
    typer.echo(f"waiting: {outlook.waiting_before} now, {outlook.waiting_after} then")


def _about_trace(
    trace: Path, inventory: Path | None, question: WhatIf, runs: str, *, as_json: bool
) -> None:
    from karez.simulation import workloads  # noqa: PLC0415 - NumPy, only here
    from karez.simulation.trace_what_if import trace_what_if  # noqa: PLC0415 - as above

    if inventory is None:
        raise BadRequest(problem="--trace needs nodes", fix="Say --inventory FILE or NAME.")
    nodes = nodes_of(inventory)
    with lines_of(trace) as lines:
        jobs = workloads.read_jobs(lines, str(trace))
    try:
        runs_s = parse_seconds(runs)
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error
    try:
        with bar("jobs ended, twice", 2 * len(jobs)) as progress:
            found = trace_what_if(nodes, jobs, question, runs_s=runs_s, progress=progress)
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error
    if as_json:
        json_out(found)
        return
    table(
        ("project", "jobs", "mean wait now", "then", "mean completion now", "then"),
        [
            (
                one.project,
                one.jobs,
                show_seconds(one.queued_before_s),
                show_seconds(one.queued_after_s),
                show_seconds(one.jct_before_s),
                show_seconds(one.jct_after_s),
            )
            for one in found.projects[:20]
        ],
        empty="no project has jobs that end",
    )
    typer.echo(
        f"all: {show_seconds(found.jct_before_s)} to completion now, "
        f"{show_seconds(found.jct_after_s)} then; {found.utilisation_before_pct:.1f}% of device "
        f"time worked now, {found.utilisation_after_pct:.1f}% then"
    )
    if found.left_out_after != found.left_out_before:
        typer.echo(f"never fit: {found.left_out_before} now, {found.left_out_after} then")
    if found.asked_jct_s is not None:
        typer.echo(f"the gang that is asked about would take {show_seconds(found.asked_jct_s)}")


def _quotas(texts: list[str]) -> dict[str, dict[DeviceKind, int]]:
    found: dict[str, dict[DeviceKind, int]] = {}
    for text in texts:
        name, colon, rest = text.partition(":")
        kind, equals, count = rest.partition("=")
        if not colon or not equals:
            raise ValueError(f"--quota {text!r} should read like lab:npu=8")
        found.setdefault(name, {})[DeviceKind(kind)] = parse_amount(DeviceKind(kind), count)
    return found


APPS = {"what-if": app}
