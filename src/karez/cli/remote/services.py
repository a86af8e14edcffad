"""`karez services`: deploy models behind the gateway."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from karez.cli.client_options import Json, ServiceName, Yes, client, confirm
from karez.cli.options import takes
from karez.cli.output import clock, json_out, table
from karez.cli.remote.service_options import (
    DeployOptions,
    UpdateOptions,
    changes_of,
    refused,
    spec_of,
)
from karez.cli.terminal import say
from karez.core.identity import DEFAULT_PROJECT, EVERYWHERE
from karez.core.servicefile import parse_service
from karez.core.services import READY, Service, ServiceSpec
from karez.core.units import show_bytes
from karez.core.workloads import RankView

app = typer.Typer(no_args_is_help=True, help="Deploy models behind the gateway.")
START_S = 1800.0
"""How long a service may take to start: large models are read for minutes."""
Wait = Annotated[bool, typer.Option(help="Wait until the service is ready.")]


@app.command("deploy")
@takes(DeployOptions)
def deploy(options: DeployOptions) -> None:
    """Deploy a model as a service.

    Example: karez services deploy router-q8-gguf --name router
    """
    _deploy(spec_of(options), wait=options.wait)


@app.command("fit")
@takes(DeployOptions)
def fit(options: DeployOptions, as_json: Json = False) -> None:
    """Say which engine would serve a model, and what memory a replica would need.

    Example: karez services fit router-q8-gguf --name router --context 8192
    """
    report = client().fit_service(spec_of(options))
    if as_json:
        json_out(report)
        return
    say(f"engine {report.engine}: {report.why}")
    if report.unknown:
        say(f"what memory it needs is unknown: {report.unknown}")
    for one in report.fits:
        room = "unknown" if one.room_bytes is None else show_bytes(one.room_bytes)
        rows = [(part.what, show_bytes(part.bytes)) for part in one.parts]
        rows += [("together", show_bytes(one.need_bytes)), (f"room of {one.device}", room)]
        table(("part", "memory"), rows, empty="")
        if not one.is_enough:
            say(f"it does not fit; {one.nearest or 'nothing of this model'} would")


def _deploy(spec: ServiceSpec, *, wait: bool) -> None:
    service = client().deploy(spec)
    if wait:
        say(f"{service.id} is starting; Ctrl-C ends this wait, and not the service")
        service = client().wait_ready(service.id, limit_s=START_S)
    say(f"{service.id} {service.state}; talk to it with: karez chat {spec.name}")


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
        _update(before, replace(before.spec, **changes_of(options, before.spec)), wait=wait)


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
        *(("schedule", one.text) for one in found.spec.schedules),
        ("reason", found.status.reason),
    ]
    rows += [("update", found.status.progress)] if found.status.progress else []
    rows += [("notice", notice) for notice in found.status.notices]
    rows += [("adapter", f"{one.name} ({one.model})") for one in found.spec.adapters]
    rows += [(f"replica {view.rank}", _shown(view)) for view in found.status.ranks]
    table(("", ""), rows, empty="")


def _shown(view: RankView) -> str:
    memory = f" {show_bytes(view.memory_bytes)}" if view.memory_bytes else ""
    return f"{view.state} on {view.node} {view.url}{memory}"


@app.command("stop")
def stop_service(service: ServiceName, yes: Yes = False) -> None:
    """Stop a service; the model stays registered."""
    confirm(f"Stop {service}?", yes=yes)
    found = client().stop_service(service)
    say(f"{found.id} {found.state}")


APPS = {"services": app}
