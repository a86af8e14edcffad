"""`karez chaos`: faults on purpose, and what they cost."""

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from karez.cli.client_options import Json
from karez.cli.output import table
from karez.cli.remote.cloud import start_cloud, stop_cloud
from karez.client.address import find_address
from karez.client.sdk import Client
from karez.core import environment
from karez.core.chaos import FaultSpec, parse_faults, plan_faults
from karez.core.errors import BadRequest
from karez.core.gang_syntax import make_gang
from karez.core.ports import FaultKind
from karez.core.resources import DeviceKind, NodeState
from karez.core.units import show_seconds
from karez.core.workloads import JobSpec, WorkloadKind
from karez.experiments.chaos import MANY, STEPS_EACH, Say, compare_runs

app = typer.Typer(no_args_is_help=True, help="Break jobs on purpose. For admins.")


@app.command("run")
def run(
    ranks: Annotated[int, typer.Option(help="Ranks of the gang.", min=1, max=64)] = 4,
    faults: Annotated[
        str, typer.Option(help="FAULT:COUNT,...: " + ", ".join(h.value for h in FaultKind))
    ] = "kill:10",
    seed: Annotated[int, typer.Option(help="Decides order, ranks and moments.", min=0)] = 0,
    mode: Annotated[str, typer.Option(help="ddp, sharded (optimizer) or fsdp.")] = "ddp",
    width: Annotated[int, typer.Option(help="504: 0.5 M parameters.", min=8, max=8192)] = 504,
    each: Annotated[str, typer.Option(help="Per rank; default: its share of the CPUs.")] = "",
    report: Annotated[Path | None, typer.Option(help="Write the figures here too.")] = None,
    as_json: Json = False,
) -> None:
    """Run a gang twice, once undisturbed and once with faults, and compare step by step.

    Uses the cloud in use; where none runs, starts one of its own and stops it after. Ends with
    code 1 if a loss or the final weights differ, more than one step per fault was lost, or the job
    did not end well.

    Example: karez chaos run --ranks 4 --faults kill:50 --seed 1 --json
    """
    try:
        wanted = parse_faults(faults)
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error
    if mode not in ("ddp", "sharded", "fsdp"):
        raise BadRequest(problem=f"--mode is ddp, sharded or fsdp, not {mode!r}")
    if mode == "fsdp" and any(harm == FaultKind.CORRUPT for harm in wanted):
        raise BadRequest(
            problem="with fsdp each rank alone has its part: no other shows that it is wrong",
            fix="Leave corrupt out, or take --mode ddp or sharded.",
        )
    say = _mute if as_json else typer.echo
    ground: dict[str, Any] = {
        "steps": STEPS_EACH * len(wanted) + 60,
        "width": width,
        "mode": mode,
        "seed": seed + 1,
        "batch": max(32, 4 * ranks),
        "pause_ms": 0.0 if ranks >= MANY else 20.0,
    }
    with _some_cloud(say), Client() as client:
        gang = make_gang(str(ranks), [each or _share(client, ranks)])
        spec = JobSpec(
            name="chaos",
            kind=WorkloadKind.TRAIN,
            recipe="chaos-workload",
            settings=ground,
            gang=gang,
            chaos=True,
        )
        figures = compare_runs(client, spec, plan_faults(wanted, ranks=ranks, seed=seed), say)
    figures |= {"asked": len(wanted), "ranks": ranks, "faults": faults, "seed": seed, "mode": mode}
    if report is not None:
        report.write_text(json.dumps(figures, indent=2) + "\n")
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
    else:
        _show(figures)
    if not figures["passed"]:
        raise typer.Exit(1)


@app.command("cause", hidden=True)  # its name in karez 0.1
@app.command("inject")
def cause(
    job: Annotated[str, typer.Argument(help="A job that was submitted with --chaos.")],
    fault: Annotated[FaultKind, typer.Option(help="What to do to it.")] = FaultKind.KILL,
    rank: Annotated[int, typer.Option(help="To which rank, or where it stands.")] = 0,
    as_json: Json = False,
) -> None:
    """Cause one fault in a job that allows it.

    Example: karez chaos inject my-job --fault stop --rank 2
    """
    with Client() as client:
        (caused,) = client.inject_faults(job, [FaultSpec(what=fault, rank=rank)])
    if as_json:
        typer.echo(json.dumps({"what": caused.what, "rank": caused.rank, "at": caused.at}))
    else:
        typer.echo(f"{caused.what} to rank {rank}; see karez jobs receipts {job}")


def _mute(_: str) -> None:
    """Nothing but the figures is printed."""


def _show(figures: dict[str, Any]) -> None:
    found = figures["recovery_s"]
    rows = [
        ("faults caused", f"{figures['caused']} of {figures['asked']}"),
        ("recovered, median", _seconds(found["median"])),
        ("recovered, 99%", _seconds(found["p99"])),
        ("most steps lost at once", figures["steps_lost_max"]),
        ("losses as without faults", "bit for bit" if figures["losses_identical"] else "NOT"),
        ("weights as without faults", "bit for bit" if figures["weights_identical"] else "NOT"),
        ("rungs", ", ".join(f"{rung} {n}" for rung, n in figures["by_rung"].items())),
        ("goodput", f"{100 * figures['goodput']:.2f}%"),
    ]
    table(("", ""), rows, empty="")


def _seconds(value: float | None) -> str:
    return "" if value is None else show_seconds(value)


def _share(client: Client, ranks: int) -> str:
    """So much of a CPU that all ranks fit into what is there."""
    ready = [node for node in client.pool() if node.state == NodeState.READY]
    cpus = sum(1 for node in ready for d in node.devices if d.kind == DeviceKind.CPU)
    if not cpus:
        raise BadRequest(problem="no node offers CPUs", fix="Say what a rank needs with --each.")
    per_cpu = -(-ranks // cpus)
    return f"cpu={1 / per_cpu:.3f}" if per_cpu > 1 else "cpu=1"


@contextmanager
def _some_cloud(say: Say) -> Iterator[None]:
    """The cloud in use, or one of its own for as long as this lasts."""
    if find_address().is_up or environment.URL in os.environ:  # noqa: TID251 - the client's door
        yield
        return
    with tempfile.TemporaryDirectory(prefix="kz-") as folder:
        ports = _free_ports(3)
        names = (environment.PORT, environment.GATEWAY_PORT, environment.RAY_PORT)
        env = {environment.HOME: f"{folder}/home", **dict(zip(names, map(str, ports), strict=True))}
        os.environ.update(env)  # noqa: TID251 - the client finds this cloud by it
        say("no cloud is running: starting one of its own")
        supervisor, _ = start_cloud(env, say=lambda _: None)
        try:
            yield
        finally:
            stop_cloud(supervisor.pid)
            supervisor.wait()


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


APPS = {"chaos": app}
