"""`karez up | down | join | status`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from karez.cli.client_options import Json, client
from karez.cli.output import json_out, table
from karez.client.address import state_folder
from karez.core import environment
from karez.core.errors import MissingPart, Remote, StartFailed, error_from

up_app = typer.Typer()
down_app = typer.Typer()
join_app = typer.Typer()
status_app = typer.Typer()
STOP_LIMIT_S = 30.0


@up_app.command()
def up(
    home: Annotated[str | None, typer.Option(help="State folder; default ~/.karez.")] = None,
    host: Annotated[
        str | None, typer.Option(help="Listen here; not loopback: others may join.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API; default 7070.")] = None,
    gateway_port: Annotated[int | None, typer.Option(help="Port of the gateway; 7080.")] = None,
    ray: Annotated[str | None, typer.Option(help="Use this Ray cluster (host:port).")] = None,
    database: Annotated[str | None, typer.Option(help="postgresql+psycopg://...")] = None,
    cpus: Annotated[int | None, typer.Option(help="CPUs to offer; default all.")] = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay; Ctrl-C stops.")] = False,
) -> None:
    """Start a cloud on this machine and return once it is ready.

    Example: karez up --port 7070
    """
    flags = {
        environment.HOME: home,
        environment.HOST: host,
        environment.PORT: port,
        environment.CPUS: cpus,
        environment.GATEWAY_PORT: gateway_port,
        environment.RAY_ADDRESS: ray,
        environment.DATABASE: database,
    }
    env = {name: str(value) for name, value in flags.items() if value is not None}
    process, first = start_cloud(env, say=typer.echo)
    if first:
        typer.echo(f"admin key (shown once; kept in {first}): {Path(first).read_text()}")
    address = json.loads((state_folder_of(env) / "cloud.json").read_text())
    typer.echo(f"ready: API {address['url']}, gateway {address['gateway']}")
    if foreground:
        _stay(process)


def start_cloud(env: dict[str, str], *, say: Any) -> "tuple[subprocess.Popen[str], str]":
    """Start the supervisor and wait until it says ready.

    Returns:
        The supervisor, and the path of the admin key if it was made now, else empty.

    Raises:
        StartFailed: With the reason it gave.
    """
    home = state_folder_of(env)
    is_new = not (home / "admin.key").exists()
    (home / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
    with (home / "logs" / "supervisor.log").open("a") as log:  # it outlives this terminal
        process = subprocess.Popen(
            [sys.executable, "-m", "karez.server.processes.main", "supervise"],
            env={**os.environ, **env},  # noqa: TID251 - handed on
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    assert process.stdout is not None
    for line in process.stdout:
        told = json.loads(line)
        if "starting" in told:
            say(f"starting {told['starting']}")
        elif "error" in told:
            error = told["error"]
            raise error_from(error["code"], error.get("fields", {})) or Remote(
                kind=error["code"], http_status=500, problem=error["what"], fix=error["hint"]
            )
        elif told.get("ready"):
            return process, str(home / "admin.key") if is_new else ""
    if process.wait() and not _has("ray"):
        raise MissingPart(part="Ray", needed_for="karez up", install="pip install 'karez[server]'")
    raise StartFailed(part="The cloud", detail=f"karezd ended with code {process.returncode}.")


def state_folder_of(env: dict[str, str]) -> Path:
    """The state folder that these settings name."""
    return (
        Path(env[environment.HOME]).expanduser().absolute()
        if environment.HOME in env
        else state_folder()
    )


def stop_cloud(pid: int, *, limit_s: float = STOP_LIMIT_S) -> bool:
    """Ask a supervisor to stop and wait until it has. False: it has not."""
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return True
    deadline = time.monotonic() + limit_s  # noqa: TID251 - a command's own clock
    while time.monotonic() < deadline:  # noqa: TID251 - as above
        if not _alive(pid):
            return True
        time.sleep(0.05)  # noqa: TID251 - as above
    return False


@down_app.command()
def down() -> None:
    """Stop the cloud on this machine: everything it started ends, its state stays."""
    file = state_folder() / "cloud.json"
    if not file.exists():
        typer.echo("no cloud runs from this state folder")
        return
    if not stop_cloud(int(json.loads(file.read_text())["pid"])):
        raise StartFailed(part="karez down", detail="the cloud still runs after 30 s.")
    file.unlink(missing_ok=True)
    typer.echo("stopped")


@join_app.command()
def join(
    url: Annotated[str, typer.Argument(help="The cloud's API, such as http://10.0.0.1:7070.")],
    token: Annotated[str, typer.Option(help="Its join token: the text of node.key there.")],
    address: Annotated[str, typer.Option(help="This host's address on that network.")],
    name: Annotated[str, typer.Option(help="What to call this node.")] = "",
    cpus: Annotated[int, typer.Option(help="CPUs to offer; 0 is all.")] = 0,
    home: Annotated[str, typer.Option(help="Folder for this node's files.")] = "~/.karez-node",
) -> None:
    """Add this machine's devices to a cloud, until Ctrl-C.

    Example: karez join http://10.0.0.1:7070 --token kz_... --address 10.0.0.2
    """
    env = {
        **os.environ,  # noqa: TID251 - handed on
        environment.JOIN_URL: url,
        environment.JOIN_TOKEN: token,
        environment.JOIN_ADDRESS: address,
        environment.JOIN_NAME: name,
        environment.NODE_CPUS: str(cpus),
        environment.NODE_HOME: str(Path(home).expanduser().absolute()),
    }
    done = subprocess.run(
        [sys.executable, "-m", "karez.server.processes.main", "node"], env=env, check=False
    )
    raise typer.Exit(done.returncode)


@status_app.command()
def status(as_json: Json = False) -> None:
    """Nodes, devices, workloads and addresses."""
    seen = client().summary()
    if as_json:
        json_out(seen)
        return
    rows = [
        ("nodes", _counts(seen.nodes)),
        (
            "devices",
            ", ".join(
                f"{n - seen.held.get(k, 0):g} of {n} {k} free" for k, n in seen.devices.items()
            ),
        ),
        ("jobs", _counts(seen.jobs)),
        ("services", _counts(seen.services)),
        ("API", client().address.url),
        ("gateway", seen.gateway_url),
        ("state folder", seen.home),
    ]
    table(("karez", seen.version), rows, empty="")


def _counts(counts: Any) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none"


def _stay(process: "subprocess.Popen[str]") -> None:
    try:
        process.wait()
    except KeyboardInterrupt:
        stop_cloud(process.pid)
        process.wait()


def _alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):  # not our child: the probe below tells
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _has(module: str) -> bool:
    from importlib.util import find_spec  # noqa: PLC0415 - only after a failure

    return find_spec(module) is not None


APPS = {"up": up_app, "down": down_app, "join": join_app, "status": status_app}
