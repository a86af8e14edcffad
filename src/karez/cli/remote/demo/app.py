"""`karez demo`: start a cloud and run the steps of the demo one after the other."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from karez.cli.command_clock import now, sleep
from karez.cli.remote.cloud import check_emulated
from karez.cli.remote.cloud_process import require_linux, start_cloud, stop_cloud
from karez.cli.remote.demo.closing_page import show_closing_page
from karez.cli.remote.demo.run import DemoRun
from karez.cli.remote.demo.serving import chat, deploy, evaluate
from karez.cli.remote.demo.tuning import import_inputs, tune
from karez.client.sdk import Client
from karez.core import environment
from karez.core.units import show_seconds
from karez.core.workloads import ACTIVE, WAITING

LIVE = (*ACTIVE, *WAITING)
app = typer.Typer()
STEPS: tuple[tuple[str, Callable[[DemoRun, Client], None]], ...] = (
    ("A model and data, with source and licence", import_inputs),
    ("Fine-tuning through two kills", tune),
    ("Measured against the base", evaluate),
    ("Converted and deployed", deploy),
    ("Chat through the gateway", chat),
)
"""Title and function of each step after the start of the cloud."""


@app.command()
def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Stop the cloud at the end instead of keeping it up.")
    ] = False,
    home: Annotated[Path, typer.Option(help="State folder of the demo's cloud.")] = Path(
        "~/.karez-demo"
    ),
    port: Annotated[int, typer.Option(help="Port of the API.")] = 7070,
    gateway_port: Annotated[int, typer.Option(help="Port of the gateway.")] = 7080,
    ray_port: Annotated[int, typer.Option(help="Port of the Ray head.")] = 7079,
    emulate: Annotated[
        str,
        typer.Option(
            help="Train and evaluate on emulated devices, as npu=COUNT.", callback=check_emulated
        ),
    ] = "",
) -> None:
    """Start a cloud, fine-tune a real model through two kills, and chat with the result.

    Takes about five minutes on two cores. The cloud keeps running until Ctrl-C.
    """
    folder = home.expanduser().absolute()
    env = {
        environment.HOME: str(folder),
        environment.PORT: str(port),
        environment.GATEWAY_PORT: str(gateway_port),
        environment.RAY_PORT: str(ray_port),
    }
    if emulate:
        env[environment.EMULATE] = emulate
    os.environ.update(env)  # noqa: TID251 - the commands of the steps use this cloud
    require_linux("A cloud on this machine")
    console = Console(width=None if sys.stdout.isatty() else 110)
    run = DemoRun(console=console, home=folder, env=env, is_emulated=bool(emulate))
    run.started_at = now()
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal stops the cloud too
        signal.signal(number, _interrupt)
    _run_demo(run, once=once)


def _run_demo(run: DemoRun, *, once: bool) -> None:
    """Start the cloud, run all steps, and stop the cloud."""
    run.head(1, "A cloud on this machine")
    run.commands.append("karez up")
    supervisor, key_file = start_cloud(run.env, say=run.say)
    run.ready_s = now() - run.started_at
    try:
        _show_start(run, key_file)
        with Client() as client:
            _run_steps(run, client)
        if not once:
            run.say("\nThe cloud keeps running. Ctrl-C stops everything it started.")
            supervisor.wait()
    except KeyboardInterrupt:
        run.say("\nstopping")
    finally:
        stop_cloud(supervisor.pid)
        supervisor.wait()
        run.say("stopped: nothing of the cloud is running any more")


def _run_steps(run: DemoRun, client: Client) -> None:
    _clear(client)
    for number, (title, step) in enumerate(STEPS, 2):
        started = now()
        run.head(number, title)
        step(run, client)
        run.seconds[title] = now() - started
    show_closing_page(run, client)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _show_start(run: DemoRun, key_file: str) -> None:
    run.say(f"ready in {show_seconds(run.ready_s)}; all state is in {run.home}")
    if key_file:
        key = Path(key_file).read_text()
        run.say(f"admin key (shown once; kept in {key_file}, mode 0600): {key}")


def _clear(client: Client) -> None:
    """Stop what an earlier demo left, however it ended, and wait until it has ended."""
    for service in client.services(ended=False):
        client.stop_service(service.id)
    for job in client.jobs(states=LIVE):
        client.cancel(job.id)
    while client.services(ended=False) or client.jobs(states=LIVE, limit=1):
        sleep(0.2)


APPS = {"demo": app}
