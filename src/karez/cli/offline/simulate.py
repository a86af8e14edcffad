"""`karez simulate`: traces through the production scheduler, offline."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from karez.cli.inventory_files import lines_of, nodes_of
from karez.cli.offline.progress import bar, parse_seeds, write_page
from karez.cli.offline.simulate_training import training
from karez.cli.output import json_out, table
from karez.core.errors import BadRequest
from karez.core.units import parse_seconds

if TYPE_CHECKING:  # NumPy: only where something is simulated
    from karez.simulation.queueing import QueueReport

app = typer.Typer(no_args_is_help=True, help="Traces through the production scheduler, offline.")
MOST_ROWS = 20
"""Projects that are shown."""
Report = Annotated[
    Path | None, typer.Option("--report", help="Write an HTML page with plots there.")
]


class PackingPolicy(StrEnum):
    """How a node is chosen."""

    BEST_FIT = "best-fit"
    FGD = "fgd"
    KAREZ = "karez"


@app.callback()
def _root() -> None:
    """Traces through the production scheduler, offline."""


@app.command()
def packing(
    nodes: Annotated[Path, typer.Option(help="CSV: sn,cpu_milli,memory_mib,gpu,model.")],
    pods: Annotated[Path, typer.Option(help="CSV: cpu_milli,memory_mib,num_gpu,gpu_milli,...")],
    policy: Annotated[PackingPolicy, typer.Option(help="How.")] = PackingPolicy.KAREZ,
    seeds: Annotated[str, typer.Option(help="Like 42-51 or 1,2,3: one run each.")] = "42-51",
    load: Annotated[float, typer.Option(help="Ask for so many times the pool.")] = 1.3,
    report_file: Report = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """How full a pool gets when workers come one by one and none leaves.

    Example: karez simulate packing --nodes nodes.csv --pods pods.csv --policy fgd
    """
    from karez.simulation import html_reports, openb  # noqa: PLC0415 - NumPy, only here
    from karez.simulation import packing as room  # noqa: PLC0415 - as above

    numbers = parse_seeds(seeds)
    if not 0 < load <= 10:
        raise BadRequest(problem=f"--load {load:g} is not between 0 and 10")
    with lines_of(nodes) as lines:
        rows = openb.read_nodes(lines, str(nodes))
    with lines_of(pods) as lines:
        asked = openb.read_pods(lines, str(pods))
    with bar("packing", len(numbers)) as progress:
        report = room.packing(
            rows, asked, policy=policy.value, seeds=numbers, load=load, progress=progress
        )
    write_page(report_file, html_reports.packing_page(report))
    if as_json:
        json_out(report)
        return
    typer.echo(
        f"{report.nodes} nodes, {report.devices:g} devices, policy {report.policy}, "
        f"{len(numbers)} seeds; percent of all devices, mean and standard deviation"
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


class QueuePolicy(StrEnum):
    """How jobs stand in line."""

    FIFO = "fifo"
    SJF = "sjf"
    BACKFILL = "backfill"
    KAREZ = "karez"


class Durations(StrEnum):
    """Whether the scheduler is told how long each job will run."""

    KNOWN = "known"
    UNKNOWN = "unknown"


@app.command()
def queue(
    jobs: Annotated[Path, typer.Option(help="CSV: Philly's, the DLRM trace's or our columns.")],
    inventory: Annotated[Path, typer.Option(help="TOML, CSV or JSON; or an imported name.")],
    policy: Annotated[QueuePolicy, typer.Option(help="How.")] = QueuePolicy.KAREZ,
    durations: Annotated[Durations, typer.Option(help="What is told.")] = Durations.UNKNOWN,
    failures: Annotated[
        str, typer.Option(help="MTBF:REPAIR of a node, such as 30d:4h; none by default.")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="For the failures.")] = 42,
    journal_file: Annotated[
        Path | None,
        typer.Option("--decision-log", "--journal", help="Write the decision log there."),
    ] = None,
    report_file: Report = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """How long jobs of a trace wait and take on an inventory.

    Example: karez simulate queue --jobs jobs.csv --inventory pool.toml --policy fifo
    """
    from karez.simulation import html_reports, queueing, workloads  # noqa: PLC0415 - NumPy, only here
    from karez.simulation.failures import parse_failures  # noqa: PLC0415 - as above

    nodes = nodes_of(inventory)
    with lines_of(jobs) as lines:
        trace = workloads.read_jobs(lines, str(jobs))
    with bar("jobs ended", len(trace)) as progress, writer(journal_file) as write:
        report = queueing.queueing(
            nodes,
            trace,
            policy=policy.value,
            known=durations == Durations.KNOWN,
            extras=queueing.Extras(
                failures=parse_failures(failures, seed), progress=progress, write=write
            ),
        )
    write_page(report_file, html_reports.queue_page(report))
    if as_json:
        json_out(report)
        return
    typer.echo(html_reports.queue_words(report))
    _print_queue(report)


def _print_queue(report: "QueueReport") -> None:
    largest = sorted(report.projects, key=lambda one: -one.jct_s.jobs)[:MOST_ROWS]
    rows = [("all", report.jct_s, report.queued_s)]
    rows += [(f"class {c.name}", c.jct_s, c.queued_s) for c in report.classes if c.name]
    rows += [(p.name, p.jct_s, p.queued_s) for p in largest]
    table(
        ["project", "jobs", "mean JCT s", "p50", "p99", "mean queued s", "p50", "p99", "max"],
        [
            [
                name,
                jct.jobs,
                f"{jct.mean:.0f}",
                f"{jct.p50:.0f}",
                f"{jct.p99:.0f}",
                f"{queued.mean:.0f}",
                f"{queued.p50:.0f}",
                f"{queued.p99:.0f}",
                f"{queued.max:.0f}",
            ]
            for name, jct, queued in rows
        ],
        empty="",
    )
    if len(report.projects) > MOST_ROWS:
        typer.echo(f"... and {len(report.projects) - MOST_ROWS} smaller projects; --json has all")
    typer.echo("")
    table(
        ["resource", "held on average %", "at most %"],
        [[use.kind, f"{use.mean_pct:.1f}", f"{use.peak_pct:.1f}"] for use in report.kinds],
        empty="",
    )
    for reason, part in report.reasons:
        typer.echo(f"waiting, {100 * part:.0f}%: {reason}")


@app.command("share", hidden=True)  # its name in karez 0.1
@app.command("colocate")
def colocate_command(
    requests: Annotated[Path, typer.Option(help="CSV: Azure's, ServeGen's, or at,load.")],
    inventory: Annotated[Path, typer.Option(help="TOML, CSV or JSON; or an imported name.")],
    replica_rate: Annotated[float, typer.Option(help="Load that a replica serves per second.")],
    replica: Annotated[str, typer.Option(help="What a replica needs.")] = "gpu=1",
    train: Annotated[str, typer.Option(help="The gang's workers: MIN:WANT:MAX.")] = "1:1:1024",
    train_each: Annotated[str, typer.Option(help="What one of them needs.")] = "gpu=1",
    window: Annotated[str, typer.Option(help="Requests are summed over so long.")] = "60s",
    headroom: Annotated[float, typer.Option(help="Replicas for so many times the load.")] = 1.2,
    start: Annotated[str, typer.Option(help="How long a replica takes to serve.")] = "30s",
    report_file: Report = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Services and elastic training on one pool, beside each on nodes of its own.

    Example: karez simulate colocate --requests azure.csv --inventory pool.toml --replica-rate 2500
    """
    from karez.core.gang_syntax import make_gang  # noqa: PLC0415 - only here
    from karez.core.resource_syntax import parse_resource_request  # noqa: PLC0415 - as above
    from karez.simulation import colocation, html_reports  # noqa: PLC0415 - NumPy, only here

    nodes = nodes_of(inventory)
    try:
        how = colocation.Colocation(
            replica=parse_resource_request(replica),
            replica_rate=replica_rate,
            training=make_gang(train, [train_each]),
            headroom=headroom,
            start_s=parse_seconds(start),
        )
        window_s = parse_seconds(window)
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error
    with lines_of(requests) as lines:
        demand = colocation.read_demand(lines, str(requests), window_s)
    with bar("windows", len(demand.load)) as progress:
        report = colocation.colocate(nodes, demand, how, progress=progress)
    write_page(report_file, html_reports.colocation_page(report))
    if as_json:
        json_out(report)
        return
    table(
        ["arrangement", "unserved %", "training device-hours", "replicas: mean", "peak", "resizes"],
        [
            [
                one.name,
                f"{one.unserved_pct:.2f}",
                f"{one.training_device_hours:.1f}",
                f"{one.replicas_mean:.1f}",
                one.replicas_peak,
                one.resizes,
            ]
            for one in (report.shared, report.split)
        ],
        empty="",
    )
    if report.training_gain is not None:
        typer.echo(f"training done on the shared pool: {report.training_gain:.2f} x the split one")


@app.command("journal", hidden=True)  # its name in karez 0.1
@app.command("verify-log")
def verify_log_command(
    file: Annotated[
        Path, typer.Argument(help="A cloud's logs/decisions.log, or one of --decision-log.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Decide a decision log again, and name the first line that differs.

    Example: karez simulate verify-log ~/.karez/logs/decisions.log
    """
    from karez.simulation.verify_log import verify_log  # noqa: PLC0415 - NumPy, only here

    with lines_of(file) as lines:
        try:
            found = verify_log(lines)
        except ValueError as error:
            raise BadRequest(problem=f"in {file}: {error}") from error
    if as_json:
        json_out(found)
    elif found.line is None:
        typer.echo(f"{found.decisions} decisions after {found.steps} steps: all the same")
    else:
        typer.echo(f"line {found.line} is not the same\n  written: {found.logged or 'nothing'}")
        typer.echo(f"  decided: {found.redone or 'nothing'}")
    if found.line is not None:
        raise typer.Exit(1)


@contextmanager
def writer(path: Path | None) -> Iterator[Callable[[str], object] | None]:
    """Writes lines to a file, if there is to be one. Raises BadRequest."""
    if path is None:
        yield None
        return
    try:
        with path.open("w", encoding="utf-8") as file:
            yield lambda line: file.write(f"{line}\n")
    except OSError as error:
        raise BadRequest(problem=f"cannot write {path}: {error.strerror}") from error
    typer.echo(f"decision log: {path}", err=True)


app.command("training")(training)
APPS = {"simulate": app}
