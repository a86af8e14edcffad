"""The options of `karez jobs submit`, and the job that they and a workload file describe."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from karez.cli.client_options import ProjectName
from karez.cli.options import pairs
from karez.cli.remote.gang_options import OffNodes, OnNodes, Roles
from karez.core.gang_syntax import make_gang
from karez.core.gangs import GangSpec, Topology
from karez.core.jobfile import parse_job
from karez.core.jobs import LADDER, JobSpec, Scalar
from karez.core.units import parse_seconds
from karez.core.workloads import WorkloadKind


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What the command line says of a job."""

    command: Annotated[list[str] | None, typer.Argument(help="After --: what to run.")] = None
    file: Annotated[Path | None, typer.Option("--file", "-f", help="A TOML workload file.")] = None
    name: Annotated[str, typer.Option(help="Default: from the command.")] = ""
    project: ProjectName = "default"
    kind: Annotated[WorkloadKind, typer.Option(help="train: a gang; batch: processes.")] = (
        WorkloadKind.BATCH
    )
    recipe: Annotated[str, typer.Option(help="Instead of a command, such as sft-lora.")] = ""
    setting: Annotated[list[str] | None, typer.Option("--set", help="Recipe setting k=v.")] = None
    workers: Annotated[str, typer.Option(help="How many: 2; 1:4 elastic; 1:4:8 grows.")] = "1"
    each: Annotated[
        list[str] | None,
        typer.Option(help="Per worker: npu=1,cpu=8,memory=32GiB; repeat for alternatives."),
    ] = None
    topology: Annotated[Topology, typer.Option(help="Where workers stand.")] = Topology.ANY
    on: OnNodes = None
    off: OffNodes = None
    role: Roles = None
    spares: Annotated[int, typer.Option(help="Workers' places held in reserve.")] = 0
    inputs: Annotated[list[str] | None, typer.Option("--input", "-i", help="role=ARTIFACT.")] = None
    code: Annotated[Path | None, typer.Option(help="Folder to upload and run in.")] = None
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE.")] = None
    secret: Annotated[list[str] | None, typer.Option(help="Name of a project secret.")] = None
    priority: Annotated[int, typer.Option(help="Higher goes first.")] = 0
    max_duration: Annotated[str, typer.Option(help="Such as 2h.")] = ""
    expected_duration: Annotated[str, typer.Option(help="About how long it runs.")] = ""
    deadline: Annotated[str, typer.Option(help="It should have ended by then, from now.")] = ""
    preemptible: Annotated[
        bool, typer.Option("--preemptible", help="May be stopped for others, and go on later.")
    ] = False
    ladder: Annotated[
        str, typer.Option(help="Recovery rungs in the order to try: in-place,replace,restart.")
    ] = ""
    peers: Annotated[int, typer.Option(help="Copies of each rank's state on other nodes.")] = 1
    chaos: Annotated[bool, typer.Option("--chaos", help="Admins may break it on purpose.")] = False
    retries: Annotated[int, typer.Option(help="Restarts after a lost node or a crash.")] = 0


def job_spec(options: JobOptions, given: Collection[str]) -> JobSpec:
    """The job that a workload file and the given options describe; an option wins over the file.

    `--set`, `--input` and `--env` change single entries of the file's tables; any other option
    replaces what the file says.

    Raises:
        ValueError: Something is not written as it should be, or contradicts itself.
        OSError: The file cannot be read.
    """
    command = tuple(options.command or ())
    if options.file is not None:
        base = parse_job(options.file.read_text())
    else:
        name = options.name or _name_from(options.recipe, command)
        base = JobSpec(name=name, command=command, recipe=options.recipe)
    changed: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("name", "project", "kind", "priority", "preemptible", "peers", "chaos")
        if name in given
    }
    for name in ("max_duration", "expected_duration", "deadline"):
        if name in given:
            changed[f"{name}_s"] = _seconds(getattr(options, name))
    if {"command", "recipe"} & set(given):
        changed |= {"command": command, "recipe": options.recipe}
    if "secret" in given:
        changed["secrets"] = tuple(options.secret or ())
    if "ladder" in given:
        rungs = tuple(options.ladder.split(",")) if options.ladder else LADDER
        changed |= {"ladder": rungs, "ladder_fixed": bool(options.ladder)}
    if "retries" in given:
        changed["retry"] = replace(base.retry, limit=options.retries)
    settings = {key: _scalar(value) for key, value in pairs(options.setting).items()}
    return replace(
        base,
        **changed,
        settings={**base.settings, **settings},
        inputs={**base.inputs, **pairs(options.inputs)},
        env={**base.env, **pairs(options.env)},
        gang=_gang(base.gang, options, given),
    )


def _gang(base: GangSpec, options: JobOptions, given: Collection[str]) -> GangSpec:
    """The gang of the file, with what options say of it."""
    said = make_gang(
        options.workers,
        options.each,
        options.topology,
        on=options.on,
        off=options.off,
        roles=options.role,
        spares=options.spares,
    )
    changed: dict[str, Any] = {}
    if "workers" in given:
        changed |= {"min": said.min, "want": said.want, "max": said.max}
    for option, name in (("each",) * 2, ("topology",) * 2, ("role", "roles"), ("spares",) * 2):
        if option in given:
            changed[name] = getattr(said, name)
    among = {name: getattr(said.among, name) for name in ("on", "off") if name in given}
    return replace(base, **changed, among=replace(base.among, **among))


def _seconds(text: str) -> float | None:
    return parse_seconds(text) if text else None


def _scalar(text: str) -> Scalar:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def _name_from(recipe: str, command: tuple[str, ...]) -> str:
    if not recipe and not command:
        raise ValueError("give a command after --, a --recipe, or a --file")
    word = recipe or next(
        (Path(w).stem for w in command if w.endswith(".py")), Path(command[0]).name
    )
    name = "".join(c if c.isalnum() or c in "-._" else "-" for c in word.lower())
    return name.lstrip("-._") or "job"
