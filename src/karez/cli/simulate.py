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
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """How full a pool gets when workers come one by one and none leaves.

    Example: karez simulate packing --nodes nodes.csv --pods pods.csv --policy fgd
    """
    from karez.simulation import openb  # noqa: PLC0415 - NumPy, only here
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
        raise BadRequest(problem=f"{path}: {error.strerror}") from error


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, where somebody looks; call it with how much is done."""
    from rich.console import Console  # noqa: PLC0415 - only where it is drawn
    from rich.progress import Progress  # noqa: PLC0415 - as above

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


APPS = {"simulate": app}
