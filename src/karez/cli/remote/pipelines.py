"""`karez pipelines`: jobs that follow from each other, in one file."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from karez.cli.client_options import Json, client
from karez.cli.options import pairs
from karez.cli.output import json_out, table
from karez.cli.remote.job_options import scalar
from karez.cli.remote.transfers import upload
from karez.cli.terminal import say
from karez.client.pipelines import PipelineRun
from karez.core.codec import to_json
from karez.core.errors import BadRequest
from karez.core.jobs import Job
from karez.core.pipelines import Pipeline, parse_pipeline

app = typer.Typer(no_args_is_help=True, help="Run jobs that follow from each other.")
LIMIT_S = 30 * 24 * 3600.0
File = Annotated[Path, typer.Argument(help="TOML file with a table [steps.NAME] for each job.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Setting of a step's recipe: STEP.NAME=VALUE. Repeatable."),
]


@app.command("run")
def run_pipeline(
    file: File,
    setting: Settings = None,
    wait: Annotated[bool, typer.Option(help="Wait for the end; the jobs run without that.")] = True,
    as_json: Json = False,
) -> None:
    """Queue all steps, each to start when those before it are done, and wait for the end.

    Ctrl-C ends the waiting, and not the jobs. The same command again goes on: steps that are done
    with the same content are not done again, and steps that failed are tried anew.

    Example: karez pipelines run desk.toml --set train.epochs=3
    """
    shown: dict[str, str] = {}

    def watch(jobs: Mapping[str, Job]) -> None:
        for name, job in jobs.items():
            if not as_json and shown.get(name) != job.state:
                shown[name] = job.state
                say(f"  {name}: {job.state}  ({job.id})")

    run = PipelineRun(
        client=client(),
        pipeline=_read(file, setting or []),
        folder=file.parent,
        send=None if as_json else upload,
        watch=watch,
    )
    run.submit()
    jobs = run.wait(limit_s=LIMIT_S) if wait else run.jobs
    if as_json:
        json_out({name: to_json(job) for name, job in jobs.items()})
    else:
        _show(run.pipeline, jobs)


@app.command("show")
def show_pipeline(file: File, as_json: Json = False) -> None:
    """Show the steps in their order, and what has become of each."""
    pipeline = _read(file, [])
    found: dict[str, Job] = {}
    named = {step.spec.name: step.name for step in pipeline.steps}
    for job in client().jobs(limit=1000):
        step = named.get(job.spec.name)
        if step is not None and job.spec.project == pipeline.project:
            found.setdefault(step, job)
    if as_json:
        json_out({name: to_json(job) for name, job in found.items()})
    else:
        _show(pipeline, found)


def _read(file: Path, settings: list[str]) -> Pipeline:
    """The pipeline of a file, with other settings. Raises BadRequest."""
    try:
        pipeline = parse_pipeline(file.read_text())
        steps = {step.name: step for step in pipeline.steps}
        for where, value in pairs(settings).items():
            name, _, setting = where.partition(".")
            if name not in steps or not setting:
                raise ValueError(f"{where!r} should be STEP.NAME, of the steps {', '.join(steps)}")
            spec = steps[name].spec
            changed = replace(spec, settings={**spec.settings, setting: scalar(value)})
            steps[name] = replace(steps[name], spec=changed)
    except (ValueError, OSError) as error:
        raise BadRequest(problem=f"{file}: {error}") from error
    return replace(pipeline, steps=tuple(steps.values()))


def _show(pipeline: Pipeline, jobs: Mapping[str, Job]) -> None:
    rows = []
    for step in pipeline.steps:
        job = jobs.get(step.name)
        state, ident = ("not run yet", "") if job is None else (job.state, job.id)
        made = {} if job is None else job.status.outputs
        outputs = ", ".join(f"{name} {artifact}" for name, artifact in made.items())
        what = step.spec.recipe or " ".join(step.spec.command)
        rows.append((step.name, what, ", ".join(step.needs), state, ident, outputs))
    table(("step", "runs", "after", "state", "job", "made"), rows, empty="no steps")


APPS = {"pipelines": app}
