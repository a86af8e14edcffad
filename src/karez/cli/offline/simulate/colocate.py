"""`karez simulate colocate`: services and training on one pool, compared with separate nodes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from karez.cli.client_options import Json
from karez.cli.inventory_files import lines_of, nodes_of
from karez.cli.offline.progress import bar, write_page
from karez.cli.offline.simulate.options import Inventory, Report
from karez.cli.options import takes
from karez.cli.output import json_out, table
from karez.cli.terminal import say
from karez.core.errors import BadRequest
from karez.core.nodes import Node
from karez.core.units import parse_seconds

if TYPE_CHECKING:  # NumPy: only where something is simulated
    from karez.simulation.colocation_report import Colocation, ColocationReport


@dataclass(frozen=True, slots=True, kw_only=True)
class ColocateOptions:
    """Options of `karez simulate colocate`."""

    requests: Annotated[
        Path,
        typer.Option(
            help="Requests: Azure's or ServeGen's CSV, Mooncake's JSON lines, or at,load."
        ),
    ]
    inventory: Inventory
    replica_rate: Annotated[float, typer.Option(help="Load that one replica serves per second.")]
    replica: Annotated[str, typer.Option(help="Resources of one replica.")] = "gpu=1"
    parallel: Annotated[int, typer.Option(help="Requests that a replica answers at once.")] = 8
    train: Annotated[
        str,
        typer.Option(
            help="Number of workers of each training gang, as MIN:WANT:MAX.",
            show_default="all that replicas leave",
        ),
    ] = ""
    train_each: Annotated[str, typer.Option(help="Resources of one training worker.")] = "gpu=1"
    gangs: Annotated[int, typer.Option(help="Number of training gangs.")] = 8
    times: Annotated[float, typer.Option(help="Factor on all requests.")] = 1.0
    window: Annotated[
        str, typer.Option(help="Period over which the rates of at,load are summed, such as 60s.")
    ] = "60s"
    start: Annotated[str, typer.Option(help="Time until a new replica serves, such as 30s.")] = (
        "10s"
    )
    step: Annotated[
        str, typer.Option(help="Time of a training step, at whose end devices are given up.")
    ] = "1s"
    patience: Annotated[
        str, typer.Option(help="Time that a request waits before it counts as unserved.")
    ] = "10s"
    answer: Annotated[
        str, typer.Option(help="Time of an answer, for requests that are rates alone.")
    ] = "10s"
    report_file: Report = None


@takes(ColocateOptions)
def colocate_command(options: ColocateOptions, as_json: Json = False) -> None:
    """Simulate services and elastic training on one pool, and on fixed parts of it.

    Example: karez simulate colocate --requests azure.csv --inventory pool.toml --replica-rate 2500
    """
    from karez.simulation import colocation, demand, html_reports  # noqa: PLC0415 - NumPy, only here

    nodes = nodes_of(options.inventory)
    try:
        plan = _plan(options, nodes)
        window_s = parse_seconds(options.window)
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error
    with lines_of(options.requests) as lines:
        load = demand.read_demand(lines, str(options.requests), plan, window_s=window_s)
    with bar("ticks", len(load.busy)) as progress:
        report = colocation.colocate(nodes, load, plan, progress=progress)
    write_page(options.report_file, html_reports.colocation_page(report))
    if as_json:
        json_out(report)
    else:
        _show(report)


def _plan(options: ColocateOptions, nodes: Sequence[Node]) -> "Colocation":
    """Parse the options. Raises ValueError."""
    from karez.core.gang_syntax import make_gang  # noqa: PLC0415 - only here
    from karez.core.resource_syntax import parse_resource_request  # noqa: PLC0415 - only here
    from karez.simulation.colocation_report import Colocation  # noqa: PLC0415 - NumPy, only here

    kind = parse_resource_request(options.train_each).kind
    devices = sum(device.kind == kind for node in nodes for device in node.devices)
    most = max(1, math.ceil(devices / max(1, options.gangs)))
    return Colocation(
        replica=parse_resource_request(options.replica),
        replica_rate=options.replica_rate,
        training=make_gang(options.train or f"1:1:{most}", [options.train_each]),
        gangs=options.gangs,
        parallel=options.parallel,
        start_s=parse_seconds(options.start),
        step_s=parse_seconds(options.step),
        patience_s=parse_seconds(options.patience),
        answer_s=parse_seconds(options.answer),
        times=options.times,
    )


def _show(report: "ColocationReport") -> None:
    heads = ("arrangement", "unserved %", "waited p99", "device use %", "training device-hours")
    table(
        [*heads, "replicas: mean", "peak", "resizes"],
        [
            [
                one.name,
                f"{one.unserved_pct:.2f}",
                f"{one.waited_p99_s:.0f} s",
                f"{one.device_use_pct:.1f}",
                f"{one.training_device_hours:.1f}",
                f"{one.replicas_mean:.1f}",
                one.replicas_peak,
                one.resizes,
            ]
            for one in (report.shared, report.halves, report.split)
        ],
        empty="",
    )
    say(f"devices are used {report.use_gain:.2f} x as much as in halves")
    if report.training_gain is not None:
        say(f"training done on the shared pool: {report.training_gain:.2f} x the split one")
    say(
        f"a gang gives a device up within {report.reclaim_p99_s:.1f} s (99 of 100 times), "
        "the rest of its step included"
    )
