"""`karez simulate queue`: replay the jobs of a trace on an inventory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
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

if TYPE_CHECKING:  # NumPy: only where something is simulated
    from karez.simulation.queue_report import QueueReport

MAX_PROJECTS = 20
"""Number of projects printed in the terminal; `--json` has all."""


class QueuePolicy(StrEnum):
    """How the scheduler orders the queue."""

    FIFO = "fifo"
    SJF = "sjf"
    BACKFILL = "backfill"
    KAREZ = "karez"


class Durations(StrEnum):
    """Whether the scheduler knows in advance how long each job runs."""

    KNOWN = "known"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOptions:
    """Options of `karez simulate queue`."""

    jobs: Annotated[
        Path,
        typer.Option(
            help="CSV file of jobs: Philly's trace, the DLRM trace, or karez's own columns."
        ),
    ]
    inventory: Inventory
    policy: Annotated[QueuePolicy, typer.Option(help="Scheduling policy.")] = QueuePolicy.KAREZ
    durations: Annotated[
        Durations, typer.Option(help="Whether the scheduler knows how long each job runs.")
    ] = Durations.UNKNOWN
    failures: Annotated[
        str,
        typer.Option(
            help="Mean time between failures and repair time of a node, such as 30d:4h. Default: "
            "no failures."
        ),
    ] = ""
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the node failures.")] = 42
    decision_log: Annotated[
        Path | None,
        typer.Option("--decision-log", "--journal", help="Write the decision log to this file."),
    ] = None
    report_file: Report = None


@takes(QueueOptions)
def queue_command(options: QueueOptions, as_json: Json = False) -> None:
    """Simulate how long the jobs of a trace wait and take on an inventory.

    Example: karez simulate queue --jobs jobs.csv --inventory pool.toml --policy fifo
    """
    from karez.simulation import html_reports  # noqa: PLC0415 - NumPy, only here

    report = _simulate(options)
    write_page(options.report_file, html_reports.queue_page(report))
    if as_json:
        json_out(report)
        return
    say(html_reports.queue_words(report))
    _show_times(report)
    _show_devices(report)


def _simulate(options: QueueOptions) -> "QueueReport":
    from karez.simulation import queueing, workloads  # noqa: PLC0415 - NumPy, only here
    from karez.simulation.failures import parse_failures  # noqa: PLC0415 - NumPy, only here

    nodes = nodes_of(options.inventory)
    with lines_of(options.jobs) as lines:
        trace = workloads.read_jobs(lines, str(options.jobs))
    with bar("jobs ended", len(trace)) as progress, line_writer(options.decision_log) as write:
        return queueing.queueing(
            nodes,
            trace,
            policy=options.policy.value,
            known=options.durations == Durations.KNOWN,
            extras=queueing.Extras(
                failures=parse_failures(options.failures, options.seed),
                progress=progress,
                write=write,
            ),
        )


def _show_times(report: "QueueReport") -> None:
    largest = sorted(report.projects, key=lambda project: -project.jct_s.jobs)[:MAX_PROJECTS]
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


def _show_devices(report: "QueueReport") -> None:
    if len(report.projects) > MAX_PROJECTS:
        say(f"... and {len(report.projects) - MAX_PROJECTS} smaller projects; --json has all")
    say("")
    table(
        ["resource", "held on average %", "at most %"],
        [[use.kind, f"{use.mean_pct:.1f}", f"{use.peak_pct:.1f}"] for use in report.kinds],
        empty="",
    )
    for reason, part in report.reasons:
        say(f"waiting, {100 * part:.0f}%: {reason}")


@contextmanager
def line_writer(path: Path | None) -> Iterator[Callable[[str], object] | None]:
    """Open a decision log for writing lines; None without a path. Raises BadRequest."""
    if path is None:
        yield None
        return
    try:
        with path.open("w", encoding="utf-8") as file:
            yield lambda line: file.write(f"{line}\n")
    except OSError as error:
        raise BadRequest(problem=f"cannot write {path}: {error.strerror}") from error
    say(f"decision log: {path}", err=True)
