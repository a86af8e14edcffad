"""`karez keys` and `karez audit`: who may use the cloud, and who changed what."""

from typing import Annotated

import typer

from karez.cli.client_options import Json, ProjectName, Yes, client, confirm
from karez.cli.output import clock, json_out, table
from karez.cli.remote.cloud_process import run_program, show_progress
from karez.cli.terminal import say
from karez.client.address import state_folder
from karez.core import environment
from karez.core.call_limits import CallClass, CallLimits
from karez.core.errors import BadRequest
from karez.core.identity import KeyRotation, KeySpec, Role
from karez.core.units import parse_seconds

keys = typer.Typer(no_args_is_help=True, help="Create, list, rotate and revoke API keys.")
audit_app = typer.Typer()


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Name of the key.")],
    project: ProjectName = "default",
    role: Annotated[Role, typer.Option(help="Role of the key.")] = Role.MEMBER,
    ttl: Annotated[
        str, typer.Option(help="How long it is valid, such as 30d; empty: for good.")
    ] = "",
    rpm: Annotated[
        int, typer.Option("--requests-per-minute", min=0, help="Calls of models; 0: no limit.")
    ] = 0,
    tpm: Annotated[
        int, typer.Option("--tokens-per-minute", min=0, help="Tokens of models; 0: no limit.")
    ] = 0,
    model: Annotated[
        list[str] | None,
        typer.Option(help="The only model that it may call; give it several times."),
    ] = None,
    address: Annotated[
        list[str] | None,
        typer.Option(help="Where its calls come from, such as 10.0.0.0/8. Repeat for more."),
    ] = None,
    priority: Annotated[
        CallClass, typer.Option(help="The first class that its calls may be of.")
    ] = CallClass.ONLINE,
    as_json: Json = False,
) -> None:
    """Create a key. The text of the key is shown only once.

    Example: karez keys create ci --model support --requests-per-minute 60
    """
    try:
        lasts_s = parse_seconds(ttl) if ttl else None
        calls = CallLimits(
            requests_per_minute=rpm,
            tokens_per_minute=tpm,
            models=tuple(model or ()),
            addresses=tuple(address or ()),
            priority=priority,
        )
        spec = KeySpec(name=name, project=project, role=role, expires_in_s=lasts_s, calls=calls)
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error
    made = client().create_key(spec)
    if as_json:
        json_out(made)
    else:
        say(made.key)


@keys.command("list")
def list_keys(as_json: Json = False) -> None:
    """List keys, without their secrets."""
    found = client().keys()
    if as_json:
        json_out(found)
        return
    rows = [
        (
            *(k.id, k.name, k.project, k.role),
            *(clock(k.created_at), clock(k.expires_at), clock(k.revoked_at)),
            k.calls.told,
        )
        for k in found
    ]
    heads = ("id", "name", "project", "role", "created", "expires", "revoked", "calls of models")
    table(heads, rows, empty="no keys")


@keys.command("rotate")
def rotate_key(
    key: Annotated[str, typer.Argument(help="Id of the key.")],
    grace: Annotated[
        str, typer.Option(help="How long the old key is valid besides, such as 1h; 0: not at all.")
    ] = "0",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Replace a key by another of the same rights. The text of the new key is shown only once.

    Where it is the admin key of this host's cloud, the file with it gets the new one.
    """
    try:
        rotation = KeyRotation(grace_s=parse_seconds(grace))
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error
    confirm(f"Replace {key}?", yes=yes)
    made = client().rotate_key(key, rotation)
    own = state_folder() / "admin.key"
    is_own = own.exists() and own.read_text().startswith(f"kz_{key}_")
    if is_own:
        fresh = own.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(made.key)
        fresh.replace(own)
    if as_json:
        json_out(made)
    else:
        say(f"the new key is in {own}" if is_own else made.key)


@keys.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(help="Id of the key.")], yes: Yes = False
) -> None:
    """Revoke a key; requests with the key are refused from now on."""
    confirm(f"Revoke {key}?", yes=yes)
    client().revoke_key(key)


@keys.command("reset-admin")
def reset_admin(
    home: Annotated[str | None, typer.Option(help="State folder. Default: ~/.karez.")] = None,
    yes: Yes = False,
) -> None:
    """Make a new admin key, as the owner of the state folder. The cloud may run; no key is needed.

    Other keys stay valid: revoke those that are lost.
    """
    confirm("Make a new admin key?", yes=yes)
    env = {} if home is None else {environment.HOME: home}
    made = run_program("reset-admin", "", env, say=show_progress)
    say(f"the new admin key is in {made['file']}")


@audit_app.command()
def audit(
    limit: Annotated[int, typer.Option(help="Maximum number of entries.")] = 50,
    as_json: Json = False,
) -> None:
    """List who changed what, newest first."""
    found = client().audit(limit)
    if as_json:
        json_out(found)
        return
    rows = [(clock(r.at), r.actor, r.action, r.outcome) for r in found]
    table(("at", "who", "what", "outcome"), rows, empty="nothing was changed yet")


APPS = {"keys": keys, "audit": audit_app}
