"""`karez simulate`: traces through the production scheduler, offline."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from karez.cli.show import json_out, table
from karez.core.errors import BadRequest

app = typer.Typer(no_args_is_help=True, help="Traces through the production scheduler, offline.")
MOST_SEEDS = 10_000
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
    from karez.simulation import openb, pages  # noqa: PLC0415 - NumPy, only here
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
    write_page(report_file, pages.packing_page(report))
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
    jobs: Annotated[Path, typer.Option(help="CSV: timestamp,duration,num_gpus,cluster.")],
    inventory: Annotated[Path, typer.Option(help="TOML: [[nodes]] count, gpu, project, ...")],
    policy: Annotated[QueuePolicy, typer.Option(help="How.")] = QueuePolicy.KAREZ,
    durations: Annotated[Durations, typer.Option(help="What is told.")] = Durations.UNKNOWN,
    report_file: Report = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """How long jobs of a trace wait and take on an inventory.

    Example: karez simulate queue --jobs jobs.csv --inventory pool.toml --policy fifo
    """
    from karez.simulation import inventories, pages, philly, queueing  # noqa: PLC0415 - only here

    with lines_of(inventory) as lines:
        nodes = inventories.read_inventory("".join(lines), str(inventory))
    with lines_of(jobs) as lines:
        trace = philly.read_jobs(lines, str(jobs))
    with bar("jobs ended", len(trace)) as progress:
        report = queueing.queueing(
            nodes, trace, policy=policy.value, known=durations == Durations.KNOWN,
            progress=progress,
        )  # fmt: skip
    write_page(report_file, pages.queue_page(report))
    if as_json:
        json_out(report)
        return
    typer.echo(
        f"{report.jobs} jobs on {report.nodes} nodes with {report.devices} devices, policy "
        f"{report.policy}, durations {report.durations}; {report.left_out} jobs never fit; "
        f"{report.preemptions} preemptions; {report.utilisation_pct:.1f}% of device time worked"
    )
    rows = [("all", report.jct_s, report.queued_s)]
    rows += [(p.project, p.jct_s, p.queued_s) for p in report.projects]
    table(
        ["project", "jobs", "mean JCT s", "p50", "p99", "mean queued s", "p50", "p99", "max"],
        [
            [
                name, jct.jobs, f"{jct.mean:.0f}", f"{jct.p50:.0f}", f"{jct.p99:.0f}",
                f"{queued.mean:.0f}", f"{queued.p50:.0f}", f"{queued.p99:.0f}",
                f"{queued.max:.0f}",
            ]
            for name, jct, queued in rows
        ],
        empty="",
    )  # fmt: skip


def parse_seeds(text: str) -> tuple[int, ...]:
    """`42-51` or `1,2,5-7`. Raises BadRequest."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})(?:-([0-9]{1,9}))?\s*", part)
        if match is None:
            raise BadRequest(problem=f"--seeds {text!r} should read like 42-51 or 1,2,3")
        first = int(match[1])
        last = int(match[2] or first)
        if last < first or last - first + len(seeds) >= MOST_SEEDS:
            raise BadRequest(problem=f"--seeds {text!r} names none, or more than {MOST_SEEDS}")
        seeds.extend(range(first, last + 1))
    return tuple(seeds)


@contextmanager
def lines_of(path: Path) -> Iterator[Iterator[str]]:
    """The lines of a text file. Raises BadRequest if it cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except OSError as error:
        raise BadRequest(problem=f"cannot read {path}: {error.strerror}") from error


def write_page(path: Path | None, text: str) -> None:
    """Write a report, if one was asked for. Raises BadRequest if it cannot be written."""
    if path is None:
        return
    try:
        path.write_text(text)
    except OSError as error:
        raise BadRequest(problem=f"cannot write {path}: {error.strerror}") from error
    typer.echo(f"report: {path}", err=True)


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, where somebody looks; call it with how much is done."""
    from rich.console import Console  # noqa: PLC0415 - only where it is drawn
    from rich.progress import Progress  # noqa: PLC0415 - as above

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


APPS = {"simulate": app}
