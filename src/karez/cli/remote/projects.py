"""`karez projects`: projects, their quotas and their secrets."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from karez.cli.client_options import Json, ProjectName, client
from karez.cli.output import json_out, table
from karez.cli.terminal import say
from karez.core.call_limits import MinuteLimits
from karez.core.devices import DeviceKind
from karez.core.errors import BadRequest, NotFound
from karez.core.guardrails import parse_guardrails
from karez.core.identity import Project, ProjectLimits
from karez.core.prices import NANO
from karez.core.resource_syntax import parse_amount, show_amount
from karez.core.units import show_bytes

projects = typer.Typer(no_args_is_help=True, help="Manage projects, quotas and secrets.")
ProjectArgument = Annotated[str, typer.Argument(help="Name of the project.")]


@projects.command("list")
def list_projects(as_json: Json = False) -> None:
    """List projects and their quotas."""
    found = client().projects()
    if as_json:
        json_out(found)
        return
    rows = [
        (
            p.name,
            _shown(p.quota) or "no limit",
            p.cohort,
            _shown(p.guarantee),
            _shown(p.lend),
            p.weight,
        )
        for p in found
    ]
    heads = ("project", "cap", "cohort", "guarantee", "lends at most", "weight")
    table(heads, rows, empty="no projects")


def _shown(limits: Mapping[DeviceKind, int]) -> str:
    return ", ".join(f"{show_amount(kind, amount)} {kind}" for kind, amount in limits.items())


@projects.command("create")
def create_project(name: ProjectArgument) -> None:
    """Create a project."""
    client().add_project(_project(name, []))


@projects.command("quota")
def set_quota(
    name: ProjectArgument,
    limits: Annotated[
        list[str] | None, typer.Argument(help="Maximum amounts, such as npu=8 cpu=32.")
    ] = None,
    cohort: Annotated[
        str, typer.Option(help="Cohort of projects that lend each other unused quota.")
    ] = "",
    guarantee: Annotated[
        list[str] | None,
        typer.Option(help="Amount that the project always gets back, such as npu=8. Repeatable."),
    ] = None,
    lend: Annotated[
        list[str] | None,
        typer.Option(help="Maximum amount that the project lends, such as npu=4. Repeatable."),
    ] = None,
    weight: Annotated[int, typer.Option(help="Weight of the project in fair sharing.")] = 1,
) -> None:
    """Set the quota of a project. A kind of resource that is not named has no limit.

    Example: karez projects quota lab npu=16 --cohort science --guarantee npu=8 --lend npu=4
    """
    project = _project(name, limits or [], cohort, guarantee or [], lend or [], weight)
    before = _present(name)
    client().set_quota(replace(project, limits=before.limits, guardrails=before.guardrails))


@projects.command("limits")
def set_limits(
    name: ProjectArgument,
    priority: Annotated[
        int | None, typer.Option(help="Highest priority of a member's jobs.")
    ] = None,
    queued: Annotated[int | None, typer.Option(help="Jobs that wait at once.")] = None,
    replicas: Annotated[int | None, typer.Option(help="Replicas of all services.")] = None,
    spend: Annotated[
        float | None,
        typer.Option(help="Cost of calls and devices in a calendar month (UTC); -1: any."),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Bytes of uploads and artifacts, such as 2TiB, or none.")
    ] = None,
    rpm: Annotated[
        int | None,
        typer.Option("--requests-per-minute", help="Calls of its models by all keys; 0: any."),
    ] = None,
    tpm: Annotated[
        int | None, typer.Option("--tokens-per-minute", help="Tokens of these calls; 0: any.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what the members of a project may take of what all share, or set it.

    Example: karez projects limits lab --priority 5 --queued 500 --storage 2TiB --spend 100
    """
    project = _present(name)
    before = project.limits
    try:
        limits = ProjectLimits(
            priority=before.priority if priority is None else priority,
            queued=before.queued if queued is None else queued,
            replicas=before.replicas if replicas is None else replicas,
            storage_bytes=before.storage_bytes if storage is None else _bytes(storage),
            spend_nano=before.spend_nano if spend is None else _nano(spend),
            calls=MinuteLimits(
                requests_per_minute=before.calls.requests_per_minute if rpm is None else rpm,
                tokens_per_minute=before.calls.tokens_per_minute if tpm is None else tpm,
            ),
        )
    except (ValueError, OverflowError) as error:
        raise BadRequest(problem=str(error)) from error
    if limits != before:
        project = client().set_quota(replace(project, limits=limits))
    if as_json:
        json_out(project.limits)
        return
    limits = project.limits
    stored = "any" if limits.storage_bytes is None else show_bytes(limits.storage_bytes)
    spent = "any" if limits.spend_nano is None else f"{limits.spend_nano / NANO:g}"
    calls = limits.calls.told or "any"
    row = (limits.priority, limits.queued, limits.replicas, stored, spent, calls)
    heads = ("priority up to", "queued jobs", "replicas", "storage", "spend a month", "calls")
    table(heads, [row], empty="")


@projects.command("guardrails")
def set_guardrails(
    name: ProjectArgument,
    file: Annotated[
        Path | None, typer.Option(help="TOML file with a table [[guardrail]] for each.")
    ] = None,
    clear: Annotated[bool, typer.Option(help="Remove all of them.")] = False,
    as_json: Json = False,
) -> None:
    """Show what is looked for in the calls of a project's models, or set it.

    Example: karez projects guardrails support --file guardrails.toml
    """
    project = _present(name)
    if file is not None or clear:
        try:
            found = () if file is None else parse_guardrails(file.read_text())
        except (OSError, ValueError) as error:
            raise BadRequest(problem=str(error)) from error
        project = client().set_quota(replace(project, guardrails=found))
    if as_json:
        json_out(project.guardrails)
        return
    rows = [(one.name, one.side, one.action, one.looks_for) for one in project.guardrails]
    table(("name", "side", "action", "looks for"), rows, empty="no guardrails")


def _nano(amount: float) -> int | None:
    return None if amount < 0 else round(amount * NANO)


def _present(name: str) -> Project:
    """The project as it is. Raises NotFound."""
    for project in client().projects():
        if project.name == name:
            return project
    raise NotFound(noun="project", name=name)


def _bytes(text: str) -> int | None:
    try:
        return None if text == "none" else parse_amount(DeviceKind.STORAGE, text)
    except ValueError as error:
        raise BadRequest(problem=str(error), fix="Write 2TiB, or none.") from error


@projects.command("secret")
def put_secret(
    name: Annotated[str, typer.Argument(help="Name of the secret.")],
    project: ProjectName = "default",
    text: Annotated[
        str,
        typer.Option(
            prompt=True, hide_input=True, help="Text of the secret. Default: prompt for the text."
        ),
    ] = "",
) -> None:
    """Store a secret for jobs of a project that name the secret."""
    client().put_secret(project, name, text)


@projects.command("secrets")
def list_secrets(project: ProjectName = "default") -> None:
    """List the names of a project's secrets."""
    for name in client().secrets(project):
        say(name)


def _project(
    name: str,
    limits: list[str],
    cohort: str = "",
    guarantee: Sequence[str] = (),
    lend: Sequence[str] = (),
    weight: int = 1,
) -> Project:
    try:
        return Project(
            name=name,
            quota=_limits(limits),
            cohort=cohort,
            guarantee=_limits(guarantee),
            lend=_limits(lend),
            weight=weight,
        )
    except ValueError as error:
        raise BadRequest(
            problem=str(error), fix="Write limits like npu=8, cpu=2.5 or memory=64GiB."
        ) from error


def _limits(texts: Sequence[str]) -> dict[DeviceKind, int]:
    limits: dict[DeviceKind, int] = {}
    for text in texts:
        kind, _, amount = text.partition("=")
        limits[DeviceKind(kind)] = parse_amount(DeviceKind(kind), amount)
    return limits


APPS = {"projects": projects}
