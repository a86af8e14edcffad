"""`karez keys`, `karez projects`, `karez usage`, `karez audit`."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from karez.cli.client_options import Json, ProjectName, Yes, client, confirm
from karez.cli.output import clock, json_out, table
from karez.core.errors import BadRequest
from karez.core.identity import KeySpec, Project, Role
from karez.core.resources import DeviceKind, parse_amount, show_amount

keys = typer.Typer(no_args_is_help=True, help="API keys.")
projects = typer.Typer(no_args_is_help=True, help="Projects, quotas and secrets.")
usage_app = typer.Typer()
audit_app = typer.Typer()


@keys.command("create")
def create_key(
    name: str,
    project: ProjectName = "default",
    role: Annotated[Role, typer.Option(help="viewer, member or admin.")] = Role.MEMBER,
    as_json: Json = False,
) -> None:
    """Make a key. Its text is shown this once."""
    made = client().create_key(KeySpec(name=name, project=project, role=role))
    if as_json:
        json_out(made)
    else:
        typer.echo(made.key)


@keys.command("list")
def list_keys(as_json: Json = False) -> None:
    """List keys, without their secrets."""
    found = client().keys()
    if as_json:
        json_out(found)
        return
    rows = [
        (k.id, k.name, k.project, k.role, clock(k.created_at), clock(k.revoked_at)) for k in found
    ]
    table(("id", "name", "project", "role", "created", "revoked"), rows, empty="no keys")


@keys.command("revoke")
def revoke_key(key: str, yes: Yes = False) -> None:
    """Refuse a key from now on."""
    confirm(f"Revoke {key}?", yes=yes)
    client().revoke_key(key)


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
def create_project(name: str) -> None:
    """Make a project."""
    client().add_project(_project(name, []))


@projects.command("quota")
def set_quota(
    name: str,
    limits: Annotated[list[str] | None, typer.Argument(help="Caps, such as npu=8 cpu=32.")] = None,
    cohort: Annotated[str, typer.Option(help="Projects that lend each other.")] = "",
    guarantee: Annotated[list[str] | None, typer.Option(help="npu=8: its own; repeat.")] = None,
    lend: Annotated[list[str] | None, typer.Option(help="npu=4: lent at most; repeat.")] = None,
    weight: Annotated[int, typer.Option(help="Its part of what projects share.")] = 1,
) -> None:
    """Set what a project may hold. A kind that is not named has no limit.

    Example: karez projects quota lab npu=16 --cohort science --guarantee npu=8 --lend npu=4
    """
    project = _project(name, limits or [], cohort, guarantee or [], lend or [], weight)
    client().set_quota(project)


@projects.command("secret")
def put_secret(
    name: str,
    project: ProjectName = "default",
    text: Annotated[str, typer.Option(prompt=True, hide_input=True, help="Asked for.")] = "",
) -> None:
    """Keep a secret for jobs that name it."""
    client().put_secret(project, name, text)


@projects.command("secrets")
def list_secrets(project: ProjectName = "default") -> None:
    """The names of a project's secrets."""
    for name in client().secrets(project):
        typer.echo(name)


@usage_app.command()
def usage(as_json: Json = False) -> None:
    """Tokens per service and device time per workload."""
    found = client().usage()
    if as_json:
        json_out(found)
        return
    rows = [
        (
            r.project,
            r.what,
            r.kind,
            r.requests or "",
            r.prompt_tokens or "",
            r.completion_tokens or "",
            f"{r.device_seconds:.0f} {r.device_kind}-s" if r.device_kind else "",
        )
        for r in found
    ]
    heads = ("project", "what", "kind", "requests", "prompt tokens", "new tokens", "devices")
    table(heads, rows, empty="nothing was used yet")


@audit_app.command()
def audit(limit: Annotated[int, typer.Option(help="At most.")] = 50, as_json: Json = False) -> None:
    """Who changed what, newest first."""
    found = client().audit(limit)
    if as_json:
        json_out(found)
        return
    rows = [(clock(r.at), r.actor, r.action, r.outcome) for r in found]
    table(("at", "who", "what", "outcome"), rows, empty="nothing was changed yet")


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


APPS = {"keys": keys, "projects": projects, "usage": usage_app, "audit": audit_app}
