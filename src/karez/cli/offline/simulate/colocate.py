"""`karez simulate colocate`: services and training on one pool, compared with separate nodes."""

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
from karez.core.units import parse_seconds

if TYPE_CHECKING:  # NumPy: only where something is simulated
    from karez.simulation.colocation_report import Colocation, ColocationReport


@dataclass(frozen=True, slots=True, kw_only=True)
class ColocateOptions:
    """Options of `karez simulate colocate`."""

    requests: Annotated[
        Path, typer.Option(help="CSV file of requests: Azure's, ServeGen's, or columns at,load.")
    ]
    inventory: Inventory
    replica_rate: Annotated[float, typer.Option(help="Load that one replica serves per second.")]
    replica: Annotated[str, typer.Option(help="Resources of one replica.")] = "gpu=1"
    train: Annotated[
        str, typer.Option(help="Number of workers of the training gang, as MIN:WANT:MAX.")
    ] = "1:1:1024"
    train_each: Annotated[str, typer.Option(help="Resources of one training worker.")] = "gpu=1"
    window: Annotated[
        str, typer.Option(help="Period over which requests are summed, such as 60s.")
    ] = "60s"
    headroom: Annotated[
        float, typer.Option(help="Capacity of the replicas as a multiple of the load.")
    ] = 1.2
    start: Annotated[str, typer.Option(help="Time until a new replica serves, such as 30s.")] = (
        "30s"
    )
    report_file: Report = None


@takes(ColocateOptions)
def colocate_command(options: ColocateOptions, as_json: Json = False) -> None:
    """Simulate services and elastic training on one pool, and on separate nodes.

    Example: karez simulate colocate --requests azure.csv --inventory pool.toml --replica-rate 2500
    """
    from karez.simulation import colocation, demand, html_reports  # noqa: PLC0415 - NumPy, only here

    nodes = nodes_of(options.inventory)
    try:
        plan = _plan(options)
        window_s = parse_seconds(options.window)
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error
    with lines_of(options.requests) as lines:
        load = demand.read_demand(lines, str(options.requests), window_s)
    with bar("windows", len(load.load)) as progress:
        report = colocation.colocate(nodes, load, plan, progress=progress)
    write_page(options.report_file, html_reports.colocation_page(report))
    if as_json:
        json_out(report)
    else:
        _show(report)


def _plan(options: ColocateOptions) -> "Colocation":
    """Parse the options. Raises ValueError."""
    from karez.core.gang_syntax import make_gang  # noqa: PLC0415 - only here
    from karez.core.resource_syntax import parse_resource_request  # noqa: PLC0415 - only here
    from karez.simulation.colocation_report import Colocation  # noqa: PLC0415 - NumPy, only here

    return Colocation(
        replica=parse_resource_request(options.replica),
        replica_rate=options.replica_rate,
        training=make_gang(options.train, [options.train_each]),
        headroom=options.headroom,
        start_s=parse_seconds(options.start),
    )


def _show(report: "ColocationReport") -> None:
    table(
        ["arrangement", "unserved %", "training device-hours", "replicas: mean", "peak", "resizes"],
        [
            [
                arrangement.name,
                f"{arrangement.unserved_pct:.2f}",
                f"{arrangement.training_device_hours:.1f}",
                f"{arrangement.replicas_mean:.1f}",
                arrangement.replicas_peak,
                arrangement.resizes,
            ]
            for arrangement in (report.shared, report.split)
        ],
        empty="",
    )
    if report.training_gain is not None:
        say(f"training done on the shared pool: {report.training_gain:.2f} x the split one")
