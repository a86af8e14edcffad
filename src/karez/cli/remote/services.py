"""`karez services`: deploy models behind the gateway."""

from dataclasses import dataclass
from typing import Annotated

import typer

from karez.cli.client_options import Json, ProjectName, ServiceName, Yes, client, confirm
from karez.cli.options import takes
from karez.cli.output import clock, json_out, table
from karez.cli.terminal import say
from karez.core.errors import BadRequest
from karez.core.resource_syntax import parse_resource_request
from karez.core.services import ServiceSpec

app = typer.Typer(no_args_is_help=True, help="Deploy models behind the gateway.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployOptions:
    """Options of `karez services deploy`."""

    model: Annotated[
        str,
        typer.Argument(help="Id or name of a model artifact in a format that the engine loads."),
    ]
    name: Annotated[str, typer.Option(help="Name of the service at the gateway.")]
    engine: Annotated[str, typer.Option(help="Inference engine: llamacpp.")] = "llamacpp"
    replicas: Annotated[int, typer.Option(help="Number of replicas.")] = 1
    each: Annotated[
        list[str] | None,
        typer.Option(help="Resources of one replica, such as cpu=1. Repeat for alternatives."),
    ] = None
    context: Annotated[int, typer.Option(help="Context length in tokens per request.")] = 2048
    project: ProjectName = "default"
    wait: Annotated[bool, typer.Option(help="Wait until the service is ready.")] = True


@app.command("deploy")
@takes(DeployOptions)
def deploy(options: DeployOptions) -> None:
    """Deploy a model as a service.

    Example: karez services deploy router-q8-gguf --name router
    """
    try:
        spec = ServiceSpec(
            name=options.name,
            model=options.model,
            project=options.project,
            engine=options.engine,
            replicas=options.replicas,
            each=tuple(parse_resource_request(text) for text in options.each or ("cpu=1",)),
            context_tokens=options.context,
        )
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error
    service = client().deploy(spec)
    if options.wait:
        service = client().wait_ready(service.id)
    say(f"{service.id} {service.state}; talk to it with: karez chat {options.name}")


@app.command("list")
def list_services(
    ended: Annotated[bool, typer.Option("--ended", help="List stopped services too.")] = False,
    as_json: Json = False,
) -> None:
    """List services, newest first."""
    found = client().services(ended=ended)
    if as_json:
        json_out(found)
        return
    rows = [
        (
            s.id,
            s.spec.name,
            s.state,
            f"{sum(v.state == 'ready' for v in s.status.ranks)}/{s.spec.replicas}",
            clock(s.created_at),
            s.status.reason[:60],
        )
        for s in found
    ]
    heads = ("id", "name", "state", "ready", "created", "reason")
    table(heads, rows, empty="no services; deploy one with `karez services deploy`")


@app.command("show")
def show_service(service: ServiceName, as_json: Json = False) -> None:
    """Show one service and its replicas."""
    found = client().service(service)
    if as_json:
        json_out(found)
        return
    rows: list[tuple[str, object]] = [
        ("id", found.id),
        ("name", found.spec.name),
        ("model", found.spec.model),
        ("engine", found.spec.engine),
        ("state", found.state),
        ("reason", found.status.reason),
    ]
    rows += [(f"replica {v.rank}", f"{v.state} on {v.node} {v.url}") for v in found.status.ranks]
    table(("", ""), rows, empty="")


@app.command("stop")
def stop_service(service: ServiceName, yes: Yes = False) -> None:
    """Stop a service; the model stays registered."""
    confirm(f"Stop {service}?", yes=yes)
    found = client().stop_service(service)
    say(f"{found.id} {found.state}")


APPS = {"services": app}
