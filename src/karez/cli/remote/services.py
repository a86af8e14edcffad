"""`karez services`: deploy models behind the gateway."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from karez.cli.client_options import Json, ProjectName, ServiceName, Yes, client, confirm
from karez.cli.options import takes
from karez.cli.output import clock, json_out, table
from karez.cli.terminal import say
from karez.core.errors import BadRequest
from karez.core.identity import DEFAULT_PROJECT, EVERYWHERE
from karez.core.resource_syntax import parse_resource_request
from karez.core.servicefile import parse_replicas, parse_service
from karez.core.services import READY, Probe, Service, ServiceSpec
from karez.core.units import parse_seconds

app = typer.Typer(no_args_is_help=True, help="Deploy models behind the gateway.")


Wait = Annotated[bool, typer.Option(help="Wait until the service is ready.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployOptions:
    """Options of `karez services deploy`."""

    model: Annotated[
        str,
        typer.Argument(help="Id or name of a model artifact in a format that the engine loads."),
    ]
    name: Annotated[str, typer.Option(help="Name of the service at the gateway.")]
    engine: Annotated[str, typer.Option(help="Inference engine: llamacpp.")] = "llamacpp"
    replicas: Annotated[
        str,
        typer.Option(help="Number of replicas, or 0..4 for as many as the requests need."),
    ] = "1"
    idle: Annotated[
        str, typer.Option(help="With 0..N: time without a request until the last one ends.")
    ] = "5m"
    each: Annotated[
        list[str] | None,
        typer.Option(help="Resources of one replica, such as cpu=1. Repeat for alternatives."),
    ] = None
    context: Annotated[int, typer.Option(help="Context length in tokens per request.")] = 2048
    probe: Annotated[
        str, typer.Option(help="A question that each replica has to answer before it gets others.")
    ] = ""
    expect: Annotated[str, typer.Option(help="What the answer to the probe contains.")] = ""
    project: ProjectName = "default"
    wait: Wait = True


@app.command("deploy")
@takes(DeployOptions)
def deploy(options: DeployOptions) -> None:
    """Deploy a model as a service.

    Example: karez services deploy router-q8-gguf --name router
    """
    with refused():
        spec = ServiceSpec(
            name=options.name,
            model=options.model,
            project=options.project,
            engine=options.engine,
            each=tuple(parse_resource_request(text) for text in options.each or ("cpu=1",)),
            context_tokens=options.context,
            idle_s=parse_seconds(options.idle),
            probe=_probe(options.probe, options.expect),
            **parse_replicas(options.replicas),
        )
    _deploy(spec, wait=options.wait)


def _deploy(spec: ServiceSpec, *, wait: bool) -> None:
    service = client().deploy(spec)
    service = client().wait_ready(service.id) if wait else service
    say(f"{service.id} {service.state}; talk to it with: karez chat {spec.name}")


def _probe(prompt: str, expect: str) -> Probe | None:
    return Probe(prompt=prompt, expect=expect) if prompt or expect else None


@contextmanager
def refused() -> Iterator[None]:
    """A value that cannot be read is a bad request."""
    try:
        yield
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error


@app.command("apply")
def apply(
    file: Annotated[Path, typer.Argument(help="A service as TOML.", exists=True, dir_okay=False)],
    wait: Wait = True,
) -> None:
    """Deploy the service of a file, or update it if it is there.

    Example: karez services apply router.toml
    """
    with refused():
        spec = parse_service(file.read_text())
    before = _live(spec)
    if before is None:
        _deploy(spec, wait=wait)
    else:
        _update(before, spec, wait=wait)


def _live(spec: ServiceSpec) -> Service | None:
    """The live service that a specification means; `default` means a key's only project."""
    project, own = spec.project, client().whoami().project
    if project == DEFAULT_PROJECT and own != EVERYWHERE:
        project = own
    named = (one for one in client().services() if one.spec.name == spec.name)
    return next((one for one in named if one.spec.project == project), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOptions:
    """Options of `karez services update`; what is not given stays as it is."""

    service: ServiceName
    model: Annotated[str | None, typer.Option(help="Another model artifact.")] = None
    replicas: Annotated[
        str | None, typer.Option(help="Number of replicas, or 0..4 for as many as needed.")
    ] = None
    idle: Annotated[
        str | None, typer.Option(help="Time without a request until the last one ends.")
    ] = None
    each: Annotated[
        list[str] | None, typer.Option(help="Resources of one replica. Repeat for alternatives.")
    ] = None
    context: Annotated[int | None, typer.Option(help="Context length in tokens.")] = None
    probe: Annotated[str | None, typer.Option(help="A question that each replica is asked.")] = None
    expect: Annotated[str | None, typer.Option(help="What the answer to it contains.")] = None


@app.command("update")
@takes(UpdateOptions)
def update(options: UpdateOptions, wait: Wait = True) -> None:
    """Change a service while it serves: one replica after the other, the first as a canary.

    An update is undone if a new replica fails, answers its probe wrongly, or answers requests
    worse than those of before.

    Example: karez services update router --model router-v2-gguf
    """
    before = client().service(options.service)
    with refused():
        _update(before, replace(before.spec, **_changes(options, before.spec)), wait=wait)


def _changes(options: UpdateOptions, spec: ServiceSpec) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if options.model is not None:
        fields["model"] = options.model
    if options.replicas is not None:
        fields |= parse_replicas(options.replicas)
    if options.idle is not None:
        fields["idle_s"] = parse_seconds(options.idle)
    if options.each:
        fields["each"] = tuple(map(parse_resource_request, options.each))
    if options.context is not None:
        fields["context_tokens"] = options.context
    if options.probe is not None or options.expect is not None:
        old = spec.probe
        prompt = options.probe if options.probe is not None else old.prompt if old else ""
        expect = options.expect if options.expect is not None else old.expect if old else ""
        fields["probe"] = _probe(prompt, expect)
    return fields


def _update(before: Service, spec: ServiceSpec, *, wait: bool) -> None:
    shown: list[str] = []

    def watch(service: Service) -> None:
        if (doing := service.status.progress) is not None and str(doing) not in shown:
            shown.append(str(doing))
            say(str(doing))

    service = client().update_service(before.id, spec)
    if wait:
        service = client().wait_updated(service, watch=watch)
    say(f"{service.id} {service.state}; {'updated' if wait else 'the update has begun'}")


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
            f"{sum(v.state == READY for v in s.status.ranks)}/{s.spec.range}",
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
        ("replicas", found.spec.range),
        ("reason", found.status.reason),
    ]
    rows += [("update", found.status.progress)] if found.status.progress else []
    rows += [("notice", notice) for notice in found.status.notices]
    rows += [(f"replica {v.rank}", f"{v.state} on {v.node} {v.url}") for v in found.status.ranks]
    table(("", ""), rows, empty="")


@app.command("stop")
def stop_service(service: ServiceName, yes: Yes = False) -> None:
    """Stop a service; the model stays registered."""
    confirm(f"Stop {service}?", yes=yes)
    found = client().stop_service(service)
    say(f"{found.id} {found.state}")


APPS = {"services": app}
