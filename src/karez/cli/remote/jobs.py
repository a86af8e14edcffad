"""`karez jobs ...`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from karez.cli.client_options import Json, ProjectName, client
from karez.cli.output import clock, json_out, table
from karez.cli.remote.gang_options import OffNodes, OnNodes, Roles
from karez.cli.remote.job_progress import watch_job
from karez.cli.remote.receipts import show_goodput, show_receipts, show_timeline
from karez.client import calls
from karez.core.artifacts import ArtifactKind
from karez.core.errors import BadRequest
from karez.core.gang_syntax import make_gang
from karez.core.jobfile import parse_job
from karez.core.units import parse_seconds, show_seconds
from karez.core.workloads import (
    LADDER,
    Job,
    JobSpec,
    Retry,
    Scalar,
    State,
    Topology,
    WorkloadKind,
)

app = typer.Typer(no_args_is_help=True, help="Submit, watch and stop jobs.")


@app.command("submit")
def submit(
    command: Annotated[list[str] | None, typer.Argument(help="After --: what to run.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="A TOML workload file.")] = None,
    name: Annotated[str, typer.Option(help="Default: from the command.")] = "",
    project: ProjectName = "default",
    kind: Annotated[
        WorkloadKind, typer.Option(help="train: a gang; batch: processes.")
    ] = WorkloadKind.BATCH,
    recipe: Annotated[str, typer.Option(help="Instead of a command, such as sft-lora.")] = "",
    setting: Annotated[list[str] | None, typer.Option("--set", help="Recipe setting k=v.")] = None,
    workers: Annotated[str, typer.Option(help="How many: 2; 1:4 elastic; 1:4:8 grows.")] = "1",
    each: Annotated[
        list[str] | None,
        typer.Option(help="Per worker: npu=1,cpu=8,memory=32GiB; repeat for alternatives."),
    ] = None,
    topology: Annotated[Topology, typer.Option(help="Where workers stand.")] = Topology.ANY,
    on: OnNodes = None,
    off: OffNodes = None,
    role: Roles = None,
    spares: Annotated[int, typer.Option(help="Workers' places held in reserve.")] = 0,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", "-i", help="role=ARTIFACT.")
    ] = None,
    code: Annotated[Path | None, typer.Option(help="Folder to upload and run in.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE.")] = None,
    secret: Annotated[list[str] | None, typer.Option(help="Name of a project secret.")] = None,
    priority: Annotated[int, typer.Option(help="Higher goes first.")] = 0,
    max_duration: Annotated[str, typer.Option(help="Such as 2h.")] = "",
    expected_duration: Annotated[str, typer.Option(help="About how long it runs.")] = "",
    deadline: Annotated[str, typer.Option(help="It should have ended by then, from now.")] = "",
    preemptible: Annotated[
        bool, typer.Option("--preemptible", help="May be stopped for others, and go on later.")
    ] = False,
    ladder: Annotated[
        str, typer.Option(help="Recovery rungs in the order to try: in-place,replace,restart.")
    ] = "",
    peers: Annotated[int, typer.Option(help="Copies of each rank's state on other nodes.")] = 1,
    chaos: Annotated[bool, typer.Option("--chaos", help="Admins may break it on purpose.")] = False,
    retries: Annotated[int, typer.Option(help="Restarts after a lost node or a crash.")] = 0,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Stay until it ends.")] = False,
    as_json: Json = False,
) -> None:
    """Queue a job. It starts once its whole gang fits.

    Examples:
      karez jobs submit --code . -- python train.py

      karez jobs submit --kind train --workers 1:2 --recipe sft-lora -i model=M -i data=D
    """
    try:
        if file is not None:
            spec = parse_job(file.read_text())
        else:
            spec = JobSpec(
                name=name or _name_from(recipe, command or []),
                project=project,
                kind=kind,
                command=tuple(command or ()),
                recipe=recipe,
                settings={key: _scalar(value) for key, value in pairs(setting).items()},
                gang=make_gang(workers, each, topology, on=on, off=off, roles=role, spares=spares),
                inputs=pairs(inputs),
                env=pairs(env),
                secrets=tuple(secret or ()),
                priority=priority,
                max_duration_s=_seconds(max_duration),
                expected_duration_s=_seconds(expected_duration),
                deadline_s=_seconds(deadline),
                preemptible=preemptible,
                retry=Retry(limit=retries),
                ladder=tuple(ladder.split(",")) if ladder else LADDER,
                ladder_fixed=bool(ladder),
                peers=peers,
                chaos=chaos,
            )
    except (ValueError, FileNotFoundError) as error:
        raise BadRequest(problem=str(error)) from error
    if code is not None:
        uploaded = client().upload(
            code, name=f"{spec.name}-code", kind=ArtifactKind.CODE, project=spec.project
        )
        spec = _with_code(spec, uploaded.id)
    job = client().submit(spec)
    if watch:
        job = watch_job(client(), job.id)
    if as_json:
        json_out(job)
    elif not watch:
        typer.echo(f"{job.id} {job.state}; follow it with: karez logs -f {job.spec.name}")


@app.command("list")
def list_jobs(
    state: Annotated[list[State] | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(help="At most.")] = 100,
    as_json: Json = False,
) -> None:
    """List the jobs you may see, newest first."""
    jobs = client().jobs(states=state or (), limit=limit)
    if as_json:
        json_out(jobs)
        return
    rows = [
        (
            j.id,
            j.spec.name,
            j.spec.project,
            j.state,
            _progress(j),
            clock(j.created_at),
            j.status.reason[:60],
        )
        for j in jobs
    ]
    heads = ("id", "name", "project", "state", "progress", "created", "reason")
    table(heads, rows, empty="no jobs; submit one with `karez jobs submit -- COMMAND`")


@app.command("show")
def show_job(job: str, as_json: Json = False) -> None:
    """One job: where it runs, how far it is, why it waits or ended."""
    found = client().job(job)
    if as_json:
        json_out(found)
        return
    status = found.status
    rows: list[tuple[str, object]] = [
        ("id", found.id),
        ("name", found.spec.name),
        ("state", found.state),
        ("reason", status.reason),
        ("end", status.end or ""),
        ("progress", _progress(found)),
        ("loss", "" if status.loss is None else f"{status.loss:.4f}"),
        ("started", clock(found.started_at)),
        ("ended", clock(found.ended_at)),
        ("generation", status.generation),
        ("restarts", status.retries),
        ("checkpoint every", show_seconds(status.checkpoint_every_s)),
    ]
    rows += [(f"output {name}", ident) for name, ident in status.outputs.items()]
    rows += [
        (f"rank {r.rank}", f"{r.state} on {r.node} {r.devices} pid {r.pid} step {r.step}")
        for r in status.ranks
    ]
    table(("", ""), rows, empty="")


@app.command("watch")
def watch(job: str) -> None:
    """Follow a job with its loss curve until it ends. Ctrl-C leaves it running."""
    watch_job(client(), job)


@app.command("cancel")
def cancel_job(job: str) -> None:
    """Stop a job."""
    found = client().call(calls.cancel(job))
    typer.echo(f"{found.id} {found.state}")


def pairs(texts: list[str] | None) -> dict[str, str]:
    """`name=value` options as a dict. Raises ValueError."""
    found = {}
    for text in texts or ():
        key, sep, value = text.partition("=")
        if not sep or not key:
            raise ValueError(f"{text!r} should read NAME=VALUE")
        found[key] = value
    return found


def _seconds(text: str) -> float | None:
    return parse_seconds(text) if text else None


def _scalar(text: str) -> Scalar:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def _name_from(recipe: str, command: list[str]) -> str:
    if not recipe and not command:
        raise ValueError("give a command after --, a --recipe, or a --file")
    word = recipe or next(
        (Path(w).stem for w in command if w.endswith(".py")), Path(command[0]).name
    )
    name = "".join(c if c.isalnum() or c in "-._" else "-" for c in word.lower())
    return name.lstrip("-._") or "job"


def _with_code(spec: JobSpec, code: str) -> JobSpec:

    return replace(spec, code=code)


def _progress(job: Job) -> str:
    total = job.status.total_steps
    return f"{job.status.step}/{total}" if total else ""


app.command("receipts")(show_receipts)
app.command("goodput")(show_goodput)
app.command("timeline")(show_timeline)
APPS = {"jobs": app}
