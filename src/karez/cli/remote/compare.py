"""`karez jobs compare` and `tensorboard`: runs beside each other."""

from pathlib import Path
from typing import Annotated

import typer

from karez.cli.client_options import Json, client
from karez.cli.output import json_out, table
from karez.cli.remote.job_progress import curve_of
from karez.cli.terminal import say
from karez.core.errors import BadRequest, NotFound
from karez.core.jobs import Job
from karez.core.run_comparison import Value, compared, described
from karez.core.tensorboard_events import event_file

Jobs = Annotated[list[str], typer.Argument(help="Ids or names of jobs.")]


def compare_jobs(
    jobs: Jobs,
    everything: Annotated[
        bool, typer.Option("--all", help="Show also what is the same in all of them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what tells jobs apart: settings, inputs, code, and what came out.

    Example: karez jobs compare rates-0 rates-1 rates-2
    """
    if len(jobs) < 2:
        raise BadRequest(problem="one job is compared with nothing", fix="Name two jobs or more.")
    found = [client().job(ident) for ident in jobs]
    runs = [described(job, _facts(job)) for job in found]
    if as_json:
        json_out([{"job": str(job.id), **run} for job, run in zip(found, runs, strict=True)])
        return
    rows = [[_shown(value) for value in row] for row in compared(runs, everything=everything)]
    table(("", *(str(job.id) for job in found)), rows, empty="they do not differ")


def write_events(
    jobs: Jobs,
    folder: Annotated[Path, typer.Option(help="Where the event files are written.")],
) -> None:
    """Write the curves of jobs as event files: `tensorboard --logdir FOLDER` shows them.

    Example: karez jobs tensorboard rates-0 rates-1 --folder curves
    """
    for ident in jobs:
        job = client().job(ident)
        points = curve_of(client().metrics(job.id))
        target = folder / f"{job.spec.name}-{job.id}"
        target.mkdir(parents=True, exist_ok=True)
        file = target / f"events.out.tfevents.{int(job.created_at)}.karez"
        file.write_bytes(event_file(points, "loss"))
        say(f"{file}: {len(points)} steps")


def _facts(job: Job) -> dict[str, dict[str, Value]]:
    found = {}
    for name, made in job.status.outputs.items():
        try:
            found[name] = dict(client().artifact(made).spec.facts)
        except NotFound:  # it was removed since
            continue
    return found


def _shown(value: Value) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
