"""Options of `karez jobs submit`, and the job that options and a workload file describe."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from karez.cli.client_options import ProjectName
from karez.cli.options import pairs
from karez.cli.remote.gang_options import OffNodes, OnNodes, Roles
from karez.core.dependencies import parse_dependency
from karez.core.gang_syntax import make_gang
from karez.core.gangs import GangSpec, Topology
from karez.core.jobfile import parse_job
from karez.core.jobs import LADDER, JobSpec, Scalar
from karez.core.slurm_script import SlurmScript, is_slurm_script, parse_slurm_script
from karez.core.units import parse_seconds
from karez.core.workloads import WorkloadKind


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """Options of `karez jobs submit`."""

    command: Annotated[list[str] | None, typer.Argument(help="Command to run, after --.")] = None
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="TOML workload file, or a batch script of Slurm."),
    ] = None
    name: Annotated[str, typer.Option(help="Name of the job. Default: from the command.")] = ""
    project: ProjectName = "default"
    kind: Annotated[
        WorkloadKind,
        typer.Option(
            help="Kind of job. train: one gang with recovery; batch: independent processes."
        ),
    ] = WorkloadKind.BATCH
    recipe: Annotated[
        str, typer.Option(help="Recipe to run instead of a command, such as sft-lora.")
    ] = ""
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Setting of the recipe, as NAME=VALUE. Repeatable."),
    ] = None
    workers: Annotated[
        str,
        typer.Option(
            help="Number of workers: 2, MIN:WANT (elastic), or MIN:WANT:MAX (uses free devices)."
        ),
    ] = "1"
    each: Annotated[
        list[str] | None,
        typer.Option(
            help="Resources of one worker: npu=1,cpu=8,memory=32GiB. Repeat for alternatives."
        ),
    ] = None
    topology: Annotated[Topology, typer.Option(help="How workers are placed in the topology.")] = (
        Topology.ANY
    )
    on: OnNodes = None
    off: OffNodes = None
    role: Roles = None
    spares: Annotated[int, typer.Option(help="Number of spare workers held in reserve.")] = 0
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="Input artifact, as ROLE=ARTIFACT. Repeatable."),
    ] = None
    code: Annotated[Path | None, typer.Option(help="Folder to upload and to run in.")] = None
    environment: Annotated[
        str, typer.Option(help="Environment with the job's Python packages, by name or id.")
    ] = ""
    image: Annotated[
        str, typer.Option(help="Container image to run in, on nodes with podman or its like.")
    ] = ""
    requirements: Annotated[
        Path | None,
        typer.Option(help="File of Python packages, in pip's format: the job's environment."),
    ] = None
    env: Annotated[
        list[str] | None,
        typer.Option(help="Environment variable of the job, as NAME=VALUE. Repeatable."),
    ] = None
    secret: Annotated[
        list[str] | None,
        typer.Option(help="Name of a secret of the project that the job may read. Repeatable."),
    ] = None
    priority: Annotated[
        int, typer.Option(help="Priority in the queue; a higher number goes first.")
    ] = 0
    max_duration: Annotated[
        str, typer.Option(help="Time after which the job is stopped, such as 2h.")
    ] = ""
    expected_duration: Annotated[
        str, typer.Option(help="Expected run time, such as 30m; lets the scheduler plan ahead.")
    ] = ""
    deadline: Annotated[
        str, typer.Option(help="Time from now by which the job should have ended, such as 8h.")
    ] = ""
    after: Annotated[
        list[str] | None,
        typer.Option(
            help="Start after another job: JOB or JOB:ok (it succeeded), JOB:any (it ended). "
            "Repeatable."
        ),
    ] = None
    array: Annotated[
        str,
        typer.Option(
            help="Submit one job for each index: 0-99, 1,3,5 or 0-15:4; 0-99%10 runs 10 at once."
        ),
    ] = ""
    preemptible: Annotated[
        bool,
        typer.Option(
            "--preemptible", help="The job may be stopped for other jobs and resumed later."
        ),
    ] = False
    ladder: Annotated[
        str,
        typer.Option(
            help="Recovery strategies in the order to try, such as in-place,replace,restart."
        ),
    ] = ""
    peers: Annotated[
        int, typer.Option(help="Number of copies of each rank's state on other nodes.")
    ] = 1
    chaos: Annotated[
        bool, typer.Option("--chaos", help="Allow admins to inject faults into the job.")
    ] = False
    calls_models: Annotated[
        bool,
        typer.Option("--calls-models", help="Give its processes a key to call deployed models."),
    ] = False
    retries: Annotated[
        int, typer.Option(help="Maximum number of restarts after a lost node or a crash.")
    ] = 0


def job_spec(options: JobOptions, given: Collection[str]) -> JobSpec:
    """Build the job from a workload file and the given options; an option wins over the file.

    `--set`, `--input` and `--env` change single entries of the file's tables; any other option
    replaces what the file says. Words behind a batch script of Slurm are its arguments.

    Raises:
        ValueError: An option or the file is malformed or contradictory.
        OSError: The file cannot be read.
    """
    base, given = _base(options, given)
    settings = {key: scalar(value) for key, value in pairs(options.setting).items()}
    return replace(
        base,
        **_changed_fields(base, options, given),
        settings={**base.settings, **settings},
        inputs={**base.inputs, **pairs(options.inputs)},
        env={**base.env, **pairs(options.env)},
        gang=_gang(base.gang, options, given),
    )


def slurm_script(options: JobOptions) -> SlurmScript | None:
    """Read the file as a batch script of Slurm, if that is what it is. Raises as `job_spec`."""
    if options.file is None:
        return None
    text = options.file.read_text()
    if not is_slurm_script(text):
        return None
    name, arguments = options.file.name, options.command or ()
    return parse_slurm_script(text, name=name, arguments=arguments)


def _base(options: JobOptions, given: Collection[str]) -> tuple[JobSpec, Collection[str]]:
    """The job that the file or the command describes, and the options that still apply to it."""
    script = slurm_script(options)
    if script is not None:
        return script.spec, set(given) - {"command"}
    if options.file is not None:
        return parse_job(options.file.read_text()), given
    command = tuple(options.command or ())
    name = options.name or _name_from(options.recipe, command)
    return JobSpec(name=name, command=command, recipe=options.recipe), given


def _changed_fields(base: JobSpec, options: JobOptions, given: Collection[str]) -> dict[str, Any]:
    """Fields of the job that given options replace as a whole."""
    changed: dict[str, Any] = {
        name: getattr(options, name)
        for name in (
            "name",
            "project",
            "kind",
            "priority",
            "preemptible",
            "peers",
            "array",
            "environment",
            "image",
            "chaos",
            "calls_models",
        )
        if name in given
    }
    for name in ("max_duration", "expected_duration", "deadline"):
        if name in given:
            changed[f"{name}_s"] = _seconds(getattr(options, name))
    if {"command", "recipe"} & set(given):
        changed |= {"command": tuple(options.command or ()), "recipe": options.recipe}
    if "after" in given:
        changed["after"] = tuple(map(parse_dependency, options.after or ()))
    if "secret" in given:
        changed["secrets"] = tuple(options.secret or ())
    if "ladder" in given:
        rungs = tuple(options.ladder.split(",")) if options.ladder else LADDER
        changed |= {"ladder": rungs, "ladder_fixed": bool(options.ladder)}
    if "retries" in given:
        changed["retry"] = replace(base.retry, limit=options.retries)
    return changed


def _gang(base: GangSpec, options: JobOptions, given: Collection[str]) -> GangSpec:
    """Build the gang from the file and the given options."""
    described = make_gang(
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
        changed |= {"min": described.min, "want": described.want, "max": described.max}
    for option, name in (("each",) * 2, ("topology",) * 2, ("role", "roles"), ("spares",) * 2):
        if option in given:
            changed[name] = getattr(described, name)
    among = {name: getattr(described.among, name) for name in ("on", "off") if name in given}
    return replace(base, **changed, among=replace(base.among, **among))


def _seconds(text: str) -> float | None:
    return parse_seconds(text) if text else None


def scalar(text: str) -> Scalar:
    """The number, truth value or text that a setting's value is written as."""
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
