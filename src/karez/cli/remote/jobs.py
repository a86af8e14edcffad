"""`karez jobs`: submit, watch and stop jobs."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from karez.cli.client_options import JobName, Json, client
from karez.cli.old_names import word_of, words_of
from karez.cli.options import given, takes
from karez.cli.output import clock, json_out, table
from karez.cli.remote.attach import attach
from karez.cli.remote.compare import compare_jobs, write_events
from karez.cli.remote.environments import add_environment
from karez.cli.remote.job_options import JobOptions, job_spec, slurm_script
from karez.cli.remote.job_progress import watch_job
from karez.cli.remote.recoveries import show_goodput, show_receipts, show_timeline
from karez.cli.remote.traces import show_trace
from karez.cli.remote.transfers import upload
from karez.cli.terminal import say
from karez.core.artifacts import ArtifactKind
from karez.core.errors import BadRequest
from karez.core.jobs import Job
from karez.core.slurm_script import SlurmScript
from karez.core.units import show_seconds
from karez.core.workloads import State

app = typer.Typer(no_args_is_help=True, help="Submit, watch and stop jobs.")


@app.command("submit")
@takes(JobOptions)
def submit(
    options: JobOptions,
    ctx: typer.Context,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Wait and show progress until the job ends.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Queue a job; the job starts once its whole gang fits. Options win over the --file.

    Examples:
      karez jobs submit --code . -- python train.py

      karez jobs submit --kind train --workers 1:2 --recipe sft-lora -i model=M -i data=D

      karez jobs submit -f job.toml --workers 4 --env SEED=7

      karez jobs submit --array 0-99%10 --code . -- sh -c 'python try.py --seed $KAREZ_ARRAY_INDEX'

      karez jobs submit --requirements requirements.txt --code . -- python train.py

      karez jobs submit -f train.sbatch
    """
    try:
        spec, script = job_spec(options, given(ctx)), slurm_script(options)
        code = options.code if script is None else options.code or _folder_of(script)
    except (ValueError, OSError) as error:
        raise BadRequest(problem=str(error)) from error
    for note in () if script is None else script.notes:
        say(f"note: {note}", err=True)
    if code is not None or options.requirements is not None:
        client().check(spec)  # what will be refused is refused before it is uploaded
    if options.requirements is not None:
        name = f"{spec.name}-environment"
        packages = add_environment(options.requirements, None, name=name, project=spec.project)
        spec = replace(spec, environment=packages.id)
    if code is not None:
        uploaded = upload(
            code, name=f"{spec.name}-code", kind=ArtifactKind.CODE, project=spec.project
        )
        spec = replace(spec, code=uploaded.id)
    job = client().submit(spec)
    if watch:
        job = watch_job(client(), job.id)
    if as_json:
        json_out(job)
    elif not watch:
        follow = f"follow it with: karez logs -f {job.spec.name}"
        if job.array is not None:
            follow = f"see its jobs with: karez jobs list --array {job.id}"
        say(f"{job.id} {job.state}; {follow}")


@app.command("list")
def list_jobs(
    state: Annotated[
        list[State] | None,
        typer.Option(
            help="List jobs in this state only. Repeatable.",
            parser=word_of(State),
            metavar=words_of(State),
        ),
    ] = None,
    limit: Annotated[int, typer.Option(help="Maximum number of jobs.")] = 100,
    array: Annotated[str, typer.Option(help="List the jobs of this array.")] = "",
    as_json: Json = False,
) -> None:
    """List the jobs you may see, newest first.

    An array is one line, unless you ask for its jobs with --array or for a --state.
    """
    jobs = client().jobs(states=state or (), limit=limit, array=array)
    if as_json:
        json_out(jobs)
        return
    rows = [_row(job) for job in jobs]
    heads = ("id", "name", "project", "state", "progress", "created", "reason")
    table(heads, rows, empty="no jobs; submit one with `karez jobs submit -- COMMAND`")


@app.command("show")
def show_job(job: JobName, as_json: Json = False) -> None:
    """Show one job, or an array as one: where it runs, its progress, why it waits or ended."""
    found = client().job(job)
    if as_json:
        json_out(found)
        return
    _show_job(found)


@app.command("watch")
def watch(job: JobName) -> None:
    """Show a job's progress and loss curve until the job ends. Ctrl-C leaves the job running."""
    watch_job(client(), job)


@app.command("cancel")
def cancel_job(job: JobName) -> None:
    """Cancel a job, or all jobs of an array."""
    found = client().cancel(job)
    say(f"{found.id} {found.state}")


def _folder_of(script: SlurmScript) -> Path:
    """The folder that a batch script of Slurm runs in, which is uploaded. Raises ValueError."""
    folder = Path(script.folder or ".").resolve()
    if folder in (Path.home().resolve(), Path(folder.anchor)):
        raise ValueError(
            f"the script would run in {folder}, and all of that would be uploaded; go to the "
            "folder of its files, or name it with --code"
        )
    return folder


def _show_job(job: Job) -> None:
    status = job.status
    rows: list[tuple[str, object]] = [
        ("id", job.id),
        ("name", job.spec.name),
        ("state", job.state),
        ("reason", status.reason),
        ("end", status.end or ""),
        ("progress", _progress(job)),
        ("loss", "" if status.loss is None else f"{status.loss:.4f}"),
        ("started", clock(job.started_at)),
        ("ended", clock(job.ended_at)),
    ]
    if job.array is None or job.array.index is not None:
        rows += [
            ("generation", status.generation),
            ("restarts", status.retries),
            ("checkpoint every", show_seconds(status.checkpoint_every_s)),
        ]
    rows += [("note", text) for text in status.notices]
    rows += [(f"output {name}", ident) for name, ident in status.outputs.items()]
    rows += [
        (f"rank {r.rank}", f"{r.state} on {r.node} {r.devices} pid {r.pid} step {r.step}")
        for r in status.ranks
    ]
    table(("", ""), rows, empty="")


def _row(job: Job) -> tuple[object, ...]:
    return (
        job.id,
        job.spec.name,
        job.spec.project,
        job.state,
        _progress(job),
        clock(job.created_at),
        job.status.reason[:60],
    )


def _progress(job: Job) -> str:
    total = job.status.total_steps
    if total:
        return f"{job.status.step}/{total}"
    return "" if job.status.progress is None else str(job.status.progress)


app.command("attach")(attach)
app.command("receipts")(show_receipts)
app.command("goodput")(show_goodput)
app.command("timeline")(show_timeline)
app.command("trace")(show_trace)
app.command("compare")(compare_jobs)
app.command("tensorboard")(write_events)
APPS = {"jobs": app}
