"""`karez faults`: what monitoring reported of nodes, and reporting it by hand."""

from typing import Annotated

import typer

from karez.cli.client_options import Json, client
from karez.cli.output import clock, json_out, table
from karez.core.errors import BadRequest
from karez.core.recovery import FaultPhase, FaultReport, Severity

app = typer.Typer(no_args_is_help=True, help="Faults of nodes: report and list them.")


@app.command("report")
def report(
    node: Annotated[str, typer.Argument(help="Name of the node.")],
    code: Annotated[str, typer.Argument(help="The monitor's own code, such as xid-79.")],
    level: Annotated[Severity, typer.Option(help="How bad it is.")] = Severity.MAJOR,
    occasion: Annotated[FaultPhase, typer.Option(help="Begun, over, or came and went.")] = (
        FaultPhase.ONCE
    ),
    device: Annotated[int | None, typer.Option(help="Index of the device.")] = None,
    sender: Annotated[str, typer.Option(help="Who says so.")] = "operator",
    detail: Annotated[str, typer.Option(help="In words.")] = "",
    as_json: Json = False,
) -> None:
    """Say what is wrong with a node. One fatal fault, or three major ones in an hour, evict it.

    Example: karez faults report node-7 xid-79 --level fatal --device 3
    """
    try:
        said = FaultReport(
            sender=sender,
            node=node,
            code=code,
            level=level,
            occasion=occasion,
            device=device,
            detail=detail,
        )
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error
    kept = client().report_fault(said)
    if as_json:
        json_out(kept)
    else:
        typer.echo(f"{kept.level} {kept.code} of {kept.node} is noted; see `karez pool`")


@app.command("list")
def list_faults(
    node: Annotated[str, typer.Option(help="Only of this node.")] = "",
    since: Annotated[float, typer.Option(help="UTC epoch seconds.")] = 0.0,
    as_json: Json = False,
) -> None:
    """What was reported, and what the cloud found itself, oldest first."""
    found = client().faults(since, node)
    if as_json:
        json_out(found)
        return
    rows = [
        (
            clock(f.at),
            f.node,
            "" if f.device is None else f.device,
            f.code,
            f.level,
            f.occasion,
            f.sender,
            f.detail[:60],
        )
        for f in found
    ]
    heads = ("at", "node", "device", "code", "level", "occasion", "sender", "detail")
    table(heads, rows, empty="no faults were reported")


APPS = {"faults": app}
