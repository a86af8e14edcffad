"""Watch a running job in the terminal: progress bar and loss curve."""

import sys
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from karez.cli.command_clock import sleep
from karez.cli.terminal import say
from karez.client.sdk import Client
from karez.core.jobs import Job
from karez.core.usage import MetricRow
from karez.core.workloads import ENDED

_BLOCKS = " ▁▂▃▄▅▆▇█"
_WIDTH, _HEIGHT = 60, 8


def watch_job(client: Client, ident: str, *, on_poll: Callable[[Job], None] | None = None) -> Job:
    """Show a job until the job has ended. Raises Failed as Client.wait does."""
    console = Console(width=None if sys.stdout.isatty() else 100)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), _Done())
    bar = Progress(*columns, TimeElapsedColumn(), console=console)
    task = bar.add_task("queued", total=None)
    rows: dict[tuple[int, int], MetricRow] = {}
    printed = ""
    with Live(bar, console=console, refresh_per_second=4, transient=False) as live:
        while True:
            job = client.job(ident)
            if job.array is None or job.array.index is not None:
                _read_metrics(client, ident, rows)
            done, of = _amount(job)
            bar.update(task, description=_headline(job), completed=done)
            bar.tasks[0].total = of or None
            live.update(Group(bar, Text(curve(_losses(rows.values())))))
            if not sys.stdout.isatty() and (line := _line(job)) != printed:
                printed = line
                console.print(line, highlight=False, markup=False)
            if on_poll is not None:
                on_poll(job)
            if job.state in ENDED:
                break
            sleep(0.25)
    if not sys.stdout.isatty():
        say()
    for text in job.status.notices:
        say(f"note: {text}")
    return client.wait(job.id)


class _Done(MofNCompleteColumn):
    """What is done and of how much; nothing where nobody knows."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.total else Text()


def _amount(job: Job) -> tuple[int, int]:
    """What is done, and of how much: steps, or else what the job does beside them."""
    status = job.status
    if status.total_steps or status.progress is None:
        return status.step, status.total_steps
    return status.progress.done, status.progress.of


def _read_metrics(client: Client, ident: str, rows: dict[tuple[int, int], MetricRow]) -> None:
    """Add new metrics; the last three steps are read again, as ranks report at different times."""
    last = max((step for step, _ in rows), default=0)
    for row in client.metrics(ident, max(-1, last - 3)):
        rows[row.step, row.rank] = row


def curve(losses: Sequence[float]) -> str:
    """Draw losses as a block chart with a scale; empty for fewer than two losses."""
    if len(losses) < 2:
        return ""
    points = _thinned(losses)
    low, high = min(points), max(points)
    span = (high - low) or 1.0
    eighths = [round((point - low) / span * (_HEIGHT * 8 - 1)) + 1 for point in points]
    lines = []
    for row in range(_HEIGHT - 1, -1, -1):
        cells = "".join(_BLOCKS[max(0, min(8, level - row * 8))] for level in eighths)
        label = high if row == _HEIGHT - 1 else low if row == 0 else None
        lines.append(f"{'' if label is None else f'{label:.3f}':>8} |{cells}")
    lines.append(f"{'loss':>8} +{'-' * len(points)} step {len(losses)}")
    return "\n".join(lines)


def _thinned(losses: Sequence[float]) -> list[float]:
    """Average consecutive losses to at most _WIDTH points."""
    if len(losses) <= _WIDTH:
        return list(losses)
    edges = [at * len(losses) // _WIDTH for at in range(_WIDTH + 1)]
    return [fmean(losses[edges[at] : edges[at + 1]]) for at in range(_WIDTH)]


def _losses(rows: Iterable[MetricRow]) -> list[float]:
    return [loss for _, loss, _ in curve_of(rows)]


def curve_of(rows: Iterable[MetricRow]) -> list[tuple[int, float, float]]:
    """(step, mean loss of the ranks, when the first of them had it) of each step."""
    steps: dict[int, list[MetricRow]] = {}
    for row in rows:
        steps.setdefault(row.step, []).append(row)
    return [
        (step, fmean(row.loss for row in found), min(row.at for row in found))
        for step, found in sorted(steps.items())
    ]


def _headline(job: Job) -> str:
    loss = "" if job.status.loss is None else f" loss {job.status.loss:.3f}"
    doing = job.status.progress
    what = f", {doing.what}" if doing is not None and not job.status.total_steps else ""
    return f"{job.spec.name}: {job.state}{what}{loss}"


def _line(job: Job) -> str:
    step = job.status.step // 10 * 10
    doing = job.status.progress
    what = ""
    if doing is not None and not job.status.total_steps:
        what = f", {doing.what}" + (f": {10 * doing.done // doing.of * 10}%" if doing.of else "")
    return f"  {job.spec.name}: {job.state}{what}" + (f", step {step}" if step else "")
