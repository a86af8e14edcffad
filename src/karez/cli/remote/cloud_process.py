"""Start and stop the processes of a cloud on this machine."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

from karez.cli.command_clock import now, sleep
from karez.cli.terminal import inherited
from karez.client.address import state_folder
from karez.core import environment
from karez.core.errors import (
    BadRequest,
    KarezError,
    MissingPart,
    OtherSystem,
    Remote,
    StartFailed,
    error_from,
)

Progress = Callable[[str, int, int], None]
"""(what is under way, how many are done, how many there are)."""
STOP_LIMIT_S = 30.0
"""Seconds that a cloud gets to stop."""


def require_linux(needed_for: str) -> None:
    """Refuse what a client's machine cannot run: a cloud, a node. Raises OtherSystem."""
    system = {"darwin": "macOS", "win32": "Windows"}.get(sys.platform, sys.platform)
    if sys.platform != "linux":
        raise OtherSystem(needed_for=needed_for, system=system)


def start_cloud(env: dict[str, str], *, say: Any) -> "tuple[subprocess.Popen[str], str]":
    """Start the supervisor and wait until the cloud is ready.

    Returns:
        The supervisor, and the path of the admin key if the key is new, else empty.

    Raises:
        StartFailed: The supervisor ended; the error holds its reason.
        OtherSystem: This machine does not run Linux.
    """
    require_linux("A cloud on this machine")
    home = state_folder_of(env)
    is_new = not (home / "admin.key").exists()
    try:
        (home / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as cause:
        problem = f"cannot create the state folder {home}: {cause.strerror}"
        raise BadRequest(problem=problem, fix="Name another folder with --home.") from cause
    process = _spawn(home, env)
    for line in process.stdout or ():
        message = json.loads(line)
        if "starting" in message:
            say(f"starting {message['starting']}")
        elif "error" in message:
            raise _as_told(message["error"])
        elif message.get("ready"):
            return process, str(home / "admin.key") if is_new else ""
    if process.wait() and find_spec("ray") is None:
        raise MissingPart(
            part="Ray",
            needed_for="a cloud on this machine",
            install="pip install 'karez[server]', or 'karez[node]' to train there",
        )
    raise StartFailed(part="The cloud", detail=f"karezd ended with code {process.returncode}.")


def run_program(name: str, request: str, env: dict[str, str], *, say: Progress) -> Any:
    """Run a program of the server to its end; returns its result, as JSON.

    Ctrl-C reaches it too: it removes what it has half done.

    Raises:
        KarezError: What it reported.
    """
    require_linux(f"karezd {name}")
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-P", "-m", "karez.server.processes.main", name],
        env=inherited(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("both are pipes")
        process.stdin.write(request)
        process.stdin.close()
        for line in process.stdout:
            message = json.loads(line)
            if "progress" in message:
                say(message["progress"], message["done"], message["of"])
            elif "error" in message:
                raise _as_told(message["error"])
            elif "done" in message:
                return message["done"]
    raise StartFailed(part=f"karezd {name}", detail=f"it ended with code {process.returncode}.")


def show_progress(what: str, done: int, of: int) -> None:
    """Show how far a program is, on a terminal."""
    if sys.stderr.isatty():
        typer.echo(f"\r{what}: {done} of {of}", nl=done == of, err=True)


def _as_told(error: dict[str, Any]) -> KarezError:
    """An error that a program of the server reported."""
    return error_from(error["code"], error.get("fields", {})) or Remote(
        kind=error["code"], http_status=500, problem=error["what"], fix=error["hint"]
    )


def _spawn(home: Path, env: dict[str, str]) -> "subprocess.Popen[str]":
    """Start the supervisor in a session of its own, so that it outlives this terminal."""
    with (home / "logs" / "supervisor.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "karez.server.processes.main", "supervise"],
            env=inherited(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )


def state_folder_of(env: dict[str, str]) -> Path:
    """State folder that an environment names."""
    return (
        Path(env[environment.HOME]).expanduser().absolute()
        if environment.HOME in env
        else state_folder()
    )


def stop_cloud(pid: int, *, limit_s: float = STOP_LIMIT_S) -> bool:
    """Ask a supervisor to stop and wait. Returns False if it still runs after the limit."""
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return True
    deadline = now() + limit_s
    while now() < deadline:
        if not _alive(pid):
            return True
        sleep(0.05)
    return False


def _alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):  # not a child of this process
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
