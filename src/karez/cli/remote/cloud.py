"""`karez up`, `down`, `join` and `status`: run a cloud on this machine, or join one."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from karez.cli.client_options import Json, client
from karez.cli.options import takes
from karez.cli.output import json_out, table
from karez.cli.remote.cloud_process import (
    require_linux,
    start_cloud,
    state_folder_of,
    stop_cloud,
)
from karez.cli.terminal import say
from karez.client.address import state_folder
from karez.core import environment
from karez.core.devices import parse_emulated
from karez.core.errors import BadRequest, StartFailed
from karez.core.identity import KeySpec, Role
from karez.core.units import parse_seconds

up_app = typer.Typer()
down_app = typer.Typer()
join_app = typer.Typer()
token_app = typer.Typer()
status_app = typer.Typer()

EMULATE_HELP = "Devices to emulate on the CPUs, as npu=COUNT: for trying things out and for tests."


def check_emulated(text: str | None) -> str | None:
    """Check an option `--emulate`, and return it. Raises BadRequest."""
    try:
        parse_emulated(text or "")
    except ValueError as error:
        raise BadRequest(problem=str(error), fix="For example --emulate npu=4.") from error
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """Options of `karez up`."""

    home: Annotated[str | None, typer.Option(help="State folder. Default: ~/.karez.")] = None
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on; other hosts can join if it is not loopback."),
    ] = None
    port: Annotated[int | None, typer.Option(help="Port of the API. Default: 7070.")] = None
    gateway_port: Annotated[
        int | None, typer.Option(help="Port of the gateway. Default: 7080.")
    ] = None
    ray: Annotated[
        str | None, typer.Option(help="Address of an existing Ray cluster, as HOST:PORT.")
    ] = None
    database: Annotated[
        str | None,
        typer.Option(help="Database URL, such as postgresql+psycopg://... Default: SQLite."),
    ] = None
    cpus: Annotated[int | None, typer.Option(help="Number of CPUs to offer. Default: all.")] = None
    emulate: Annotated[str | None, typer.Option(help=EMULATE_HELP, callback=check_emulated)] = None
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay in the foreground; Ctrl-C stops the cloud.")
    ] = False


@up_app.command()
@takes(UpOptions)
def up(options: UpOptions) -> None:
    """Start a cloud on this machine and return once it is ready.

    Example: karez up --port 7070
    """
    flags = {
        environment.HOME: options.home,
        environment.HOST: options.host,
        environment.PORT: options.port,
        environment.CPUS: options.cpus,
        environment.EMULATE: options.emulate,
        environment.GATEWAY_PORT: options.gateway_port,
        environment.RAY_ADDRESS: options.ray,
        environment.DATABASE: options.database,
    }
    env = {name: str(value) for name, value in flags.items() if value is not None}
    process, first = start_cloud(env, say=typer.echo)
    if first:
        say(f"admin key (shown once; kept in {first}): {Path(first).read_text()}")
    address = json.loads((state_folder_of(env) / "cloud.json").read_text())
    say(f"ready: API {address['url']}, gateway {address['gateway']}")
    if options.foreground:
        _stay(process)


@down_app.command()
def down() -> None:
    """Stop the cloud on this machine and its workloads; the state folder stays."""
    file = state_folder() / "cloud.json"
    if not file.exists():
        say("no cloud runs from this state folder")
        return
    if not stop_cloud(int(json.loads(file.read_text())["pid"])):
        raise StartFailed(part="karez down", detail="the cloud still runs after 30 s.")
    file.unlink(missing_ok=True)
    say("stopped")


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinOptions:
    """Options of `karez join`."""

    url: Annotated[
        str, typer.Argument(help="URL of the cloud's API, such as http://10.0.0.1:7070.")
    ]
    address: Annotated[str, typer.Option(help="Address of this host that the cloud can reach.")]
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token of `karez join-token`; - for standard input."),
    ] = None
    token: Annotated[
        str,
        typer.Option(
            envvar=environment.JOIN_TOKEN, help="The token itself: others on this host may see it."
        ),
    ] = ""
    name: Annotated[str, typer.Option(help="Name of this node in the cloud.")] = ""
    cpus: Annotated[int, typer.Option(help="Number of CPUs to offer; 0: all.")] = 0
    emulate: Annotated[str, typer.Option(help=EMULATE_HELP, callback=check_emulated)] = ""
    home: Annotated[str, typer.Option(help="Folder for the files of this node.")] = "~/.karez-node"


@join_app.command()
@takes(JoinOptions)
def join(options: JoinOptions) -> None:
    """Add this machine's devices to a cloud, until Ctrl-C.

    The token is asked for if neither a file nor an earlier join has one.

    Example: karez join http://10.0.0.1:7070 --address 10.0.0.2
    """
    require_linux("A node")
    home = Path(options.home).expanduser().absolute()
    env = {
        **os.environ,  # noqa: TID251 - the node process inherits this environment
        environment.JOIN_URL: options.url,
        environment.JOIN_TOKEN: _join_token(options, home),
        environment.JOIN_ADDRESS: options.address,
        environment.JOIN_NAME: options.name,
        environment.NODE_CPUS: str(options.cpus),
        environment.NODE_EMULATE: options.emulate,
        environment.NODE_HOME: str(home),
    }
    done = subprocess.run(
        [sys.executable, "-P", "-m", "karez.server.processes.main", "node"], env=env, check=False
    )
    raise typer.Exit(done.returncode)


def _join_token(options: JoinOptions, home: Path) -> str:
    """The token; empty: the host has a key of an earlier join."""
    if options.token:
        return options.token
    if options.token_file is not None:
        file = options.token_file
        return (sys.stdin.read() if str(file) == "-" else file.read_text()).strip()
    if (home / "node.key").exists() or not sys.stdin.isatty():
        return ""
    asked: str = typer.prompt("Token of `karez join-token`", hide_input=True)
    return asked


@token_app.command()
def join_token(
    name: Annotated[str, typer.Argument(help="Name of the host, for the list of keys.")] = "host",
    ttl: Annotated[str, typer.Option(help="How long it is valid, such as 1h.")] = "1h",
) -> None:
    """Print a token with which one host may join once.

    Example: karez join-token gpu-7 > token; karez join URL --address A --token-file token
    """
    try:
        spec = KeySpec(name=name, project="*", role=Role.JOIN, expires_in_s=parse_seconds(ttl))
    except ValueError as error:
        raise BadRequest(problem=str(error), fix="Write --ttl 1h, or 30m.") from error
    say(client().create_key(spec).key)


@status_app.command()
def status(as_json: Json = False) -> None:
    """Show nodes, devices, workloads and addresses of the cloud."""
    summary = client().summary()
    if as_json:
        json_out(summary)
        return
    rows = [
        ("nodes", _counts(summary.nodes)),
        (
            "devices",
            ", ".join(
                f"{n - summary.held.get(k, 0):g} of {n} {k} free"
                for k, n in summary.devices.items()
            ),
        ),
        ("jobs", _counts(summary.jobs)),
        ("services", _counts(summary.services)),
        ("API", client().address.url),
        ("gateway", summary.gateway_url),
        ("state folder", summary.home),
    ]
    table(("karez", summary.version), rows, empty="")


def _counts(counts: Any) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none"


def _stay(process: "subprocess.Popen[str]") -> None:
    try:
        process.wait()
    except KeyboardInterrupt:
        stop_cloud(process.pid)
        process.wait()


APPS = {
    "up": up_app,
    "down": down_app,
    "join": join_app,
    "join-token": token_app,
    "status": status_app,
}
