"""`karez what-if`."""

from typing import Annotated

import typer

from karez.cli.connect import Json, ProjectName, client
from karez.cli.gangs import make_gang
from karez.cli.show import json_out, table
from karez.client import calls
from karez.core.errors import BadRequest
from karez.core.reasons import WhatIf
from karez.core.resources import DeviceKind, NodeId, parse_amount
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
    as_json: Json = False,
) -> None:
    """Say what would change, and for whom, if nodes, quotas or the queue were different.

    Nothing is changed. Example: karez what-if --remove node-3 --workers 8 --each npu=8
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
    outlook = client().call(calls.what_if(question))
    if as_json:
        json_out(outlook)
        return
    table(
        ("workload", "project", "now", "then", "because"),
        [(e.id, e.project, e.before, e.after, e.reason) for e in outlook.effects],
        empty="Nothing would be different.",
    )
    typer.echo(f"waiting: {outlook.waiting_before} now, {outlook.waiting_after} then")


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
