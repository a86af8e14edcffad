"""`karez simulate packing`: fill a pool with workers until nothing fits."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from karez.cli.client_options import Json
from karez.cli.inventory_files import lines_of
from karez.cli.offline.progress import bar, parse_seeds, write_page
from karez.cli.offline.simulate.options import Report
from karez.cli.options import takes
from karez.cli.output import json_out, table
from karez.cli.terminal import say
from karez.core.errors import BadRequest

if TYPE_CHECKING:  # NumPy: only where something is simulated
    from karez.simulation.packing import PackingReport


class PackingPolicy(StrEnum):
    """How the scheduler chooses a node for a worker."""

    BEST_FIT = "best-fit"
    FGD = "fgd"
    KAREZ = "karez"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackingOptions:
    """Options of `karez simulate packing`."""

    nodes: Annotated[
        Path, typer.Option(help="CSV file of nodes: sn,cpu_milli,memory_mib,gpu,model.")
    ]
    pods: Annotated[
        Path, typer.Option(help="CSV file of workers: cpu_milli,memory_mib,num_gpu,gpu_milli,...")
    ]
    policy: Annotated[PackingPolicy, typer.Option(help="Placement policy.")] = PackingPolicy.KAREZ
    seeds: Annotated[
        str, typer.Option(help="Random seeds, one run each, such as 42-51 or 1,2,3.")
    ] = "42-51"
    load: Annotated[
        float, typer.Option(help="Total demand as a multiple of the pool's capacity.")
    ] = 1.3
    report_file: Report = None


@takes(PackingOptions)
def packing_command(options: PackingOptions, as_json: Json = False) -> None:
    """Simulate how full a pool gets when workers arrive one by one and none leaves.

    Example: karez simulate packing --nodes nodes.csv --pods pods.csv --policy fgd
    """
    from karez.simulation import html_reports, openb  # noqa: PLC0415 - NumPy, only here
    from karez.simulation import packing as simulation  # noqa: PLC0415 - NumPy, only here

    numbers = parse_seeds(options.seeds)
    if not 0 < options.load <= 10:
        raise BadRequest(problem=f"--load {options.load:g} is not between 0 and 10")
    with lines_of(options.nodes) as lines:
        rows = openb.read_nodes(lines, str(options.nodes))
    with lines_of(options.pods) as lines:
        requests = openb.read_pods(lines, str(options.pods))
    with bar("packing", len(numbers)) as progress:
        report = simulation.packing(
            rows,
            requests,
            policy=options.policy.value,
            seeds=numbers,
            load=options.load,
            progress=progress,
        )
    write_page(options.report_file, html_reports.packing_page(report))
    if as_json:
        json_out(report)
    else:
        _show(report, len(numbers))


def _show(report: "PackingReport", seeds: int) -> None:
    say(
        f"{report.nodes} nodes, {report.devices:g} devices, policy {report.policy}, "
        f"{seeds} seeds; percent of all devices, mean and standard deviation"
    )
    shown = [p for p in report.points if p.arrived_pct % 10 == 0 or p.arrived_pct == 95]
    table(
        ["arrived", "allocated", "", "fragmented", ""],
        [
            [
                f"{point.arrived_pct}",
                f"{point.allocated_pct.mean:.2f}",
                f"+- {point.allocated_pct.sd:.2f}",
                f"{point.fragmented_pct.mean:.2f}",
                f"+- {point.fragmented_pct.sd:.2f}",
            ]
            for point in shown
        ],
        empty="The load is too small for one percent.",
    )
