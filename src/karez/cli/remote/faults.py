"""`karez faults`: list faults of nodes, and report one by hand."""

from dataclasses import dataclass
from typing import Annotated

import typer

from karez.cli.client_options import Json, client
from karez.cli.options import takes
from karez.cli.output import clock, json_out, table
from karez.cli.terminal import say
from karez.core.errors import BadRequest
from karez.core.recovery import FaultPhase, FaultReport, Severity

app = typer.Typer(no_args_is_help=True, help="Report and list faults of nodes.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """Options of `karez faults report`."""

    node: Annotated[str, typer.Argument(help="Name of the node.")]
    code: Annotated[
        str, typer.Argument(help="Fault code of the monitoring system, such as xid-79.")
    ]
    level: Annotated[Severity, typer.Option(help="Severity of the fault.")] = Severity.MAJOR
    occasion: Annotated[
        FaultPhase, typer.Option(help="Whether the fault has begun, has ended, or occurred once.")
    ] = FaultPhase.ONCE
    device: Annotated[int | None, typer.Option(help="Index of the faulty device on the node.")] = (
        None
    )
    sender: Annotated[str, typer.Option(help="Name of the reporting person or system.")] = (
        "operator"
    )
    detail: Annotated[str, typer.Option(help="Free-text description.")] = ""


@app.command("report")
@takes(ReportOptions)
def report(options: ReportOptions, as_json: Json = False) -> None:
    """Report a fault of a node. One fatal fault, or three major ones in an hour, evict the node.

    Example: karez faults report node-7 xid-79 --level fatal --device 3
    """
    try:
        fault = FaultReport(
            sender=options.sender,
            node=options.node,
            code=options.code,
            level=options.level,
            occasion=options.occasion,
            device=options.device,
            detail=options.detail,
        )
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error
    stored = client().report_fault(fault)
    if as_json:
        json_out(stored)
    else:
        say(f"{stored.level} {stored.code} of {stored.node} is recorded; see `karez pool`")


@app.command("list")
def list_faults(
    node: Annotated[str, typer.Option(help="List faults of this node only.")] = "",
    since: Annotated[
        float, typer.Option(help="List faults since this time, in UTC epoch seconds.")
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """List faults that were reported or that the cloud detected, oldest first."""
    found = client().faults(since, node)
    if as_json:
        json_out(found)
        return
    rows = [_row(fault) for fault in found]
    heads = ("at", "node", "device", "code", "level", "occasion", "sender", "detail")
    table(heads, rows, empty="no faults were reported")


def _row(fault: FaultReport) -> tuple[object, ...]:
    return (
        clock(fault.at),
        fault.node,
        "" if fault.device is None else fault.device,
        fault.code,
        fault.level,
        fault.occasion,
        fault.sender,
        fault.detail[:60],
    )


APPS = {"faults": app}
