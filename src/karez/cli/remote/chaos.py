"""`karez chaos`: inject faults into jobs, and measure the recoveries."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from karez.cli.client_options import Json
from karez.cli.old_names import by_old_name, word_of, words_of
from karez.cli.options import takes
from karez.cli.output import table
from karez.cli.remote.temporary_cloud import running_cloud
from karez.cli.terminal import say
from karez.client.sdk import Client
from karez.core.chaos import FaultSpec, parse_faults, plan_faults
from karez.core.devices import DeviceKind
from karez.core.errors import BadRequest
from karez.core.fault_injection import FaultKind
from karez.core.gang_syntax import make_gang
from karez.core.jobs import JobSpec
from karez.core.nodes import NodeState
from karez.core.units import show_seconds
from karez.core.workloads import WorkloadKind
from karez.experiments.chaos import MANY, STEPS_EACH, compare_runs

app = typer.Typer(
    no_args_is_help=True, help="Inject faults into jobs, and measure the recoveries. For admins."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosOptions:
    """Options of `karez chaos run`."""

    ranks: Annotated[int, typer.Option(help="Number of ranks of the gang.", min=1, max=64)] = 4
    faults: Annotated[
        str,
        typer.Option(
            help="Faults to inject, as FAULT:COUNT,... Faults: "
            + ", ".join(fault.value for fault in FaultKind)
        ),
    ] = "kill:10"
    seed: Annotated[
        int, typer.Option(help="Random seed of the faults' order, ranks and times.", min=0)
    ] = 0
    mode: Annotated[
        str, typer.Option(help="Parallelism: ddp, sharded (sharded optimizer) or fsdp.")
    ] = "ddp"
    width: Annotated[
        int,
        typer.Option(help="Width of the model's layers; 504: 0.5 M parameters.", min=8, max=8192),
    ] = 504
    each: Annotated[
        str, typer.Option(help="Resources of one rank. Default: an equal share of the CPUs.")
    ] = ""
    report: Annotated[
        Path | None, typer.Option(help="Also write the figures to this file as JSON.")
    ] = None


@app.command("run")
@takes(ChaosOptions)
def run(options: ChaosOptions, as_json: Json = False) -> None:
    """Run a gang once undisturbed and once with faults, and compare step by step.

    Uses the cloud in use; without one, starts a temporary cloud and stops it afterwards. Exit code
    1 if a loss or the final weights differ, more than one step per fault was lost, or the job did
    not succeed.

    Example: karez chaos run --ranks 4 --faults kill:50 --seed 1 --json
    """
    faults = _parse(options)
    say = _mute if as_json else typer.echo
    with running_cloud(say), Client() as client:
        groups = plan_faults(faults, ranks=options.ranks, seed=options.seed)
        figures = compare_runs(client, _job(client, options, len(faults)), groups, say)
    figures |= {
        "asked": len(faults),
        "ranks": options.ranks,
        "faults": options.faults,
        "seed": options.seed,
        "mode": options.mode,
    }
    if options.report is not None:
        options.report.write_text(json.dumps(figures, indent=2) + "\n")
    if as_json:
        say(json.dumps(figures, indent=2))
    else:
        _show(figures)
    if not figures["passed"]:
        raise typer.Exit(1)


def _parse(options: ChaosOptions) -> list[FaultKind]:
    """Parse the faults and check the mode. Raises BadRequest."""
    try:
        faults = parse_faults(options.faults)
    except ValueError as error:
        raise BadRequest(problem=str(error)) from error
    if options.mode not in ("ddp", "sharded", "fsdp"):
        raise BadRequest(problem=f"--mode is ddp, sharded or fsdp, not {options.mode!r}")
    if options.mode == "fsdp" and any(fault == FaultKind.CORRUPT for fault in faults):
        raise BadRequest(
            problem="with fsdp each shard is on one rank only, so corruption cannot be detected",
            fix="Leave corrupt out, or take --mode ddp or sharded.",
        )
    return faults


def _job(client: Client, options: ChaosOptions, faults: int) -> JobSpec:
    return JobSpec(
        name="chaos",
        kind=WorkloadKind.TRAIN,
        recipe="chaos-workload",
        settings={
            "steps": STEPS_EACH * faults + 60,
            "width": options.width,
            "mode": options.mode,
            "seed": options.seed + 1,
            "batch": max(32, 4 * options.ranks),
            "pause_ms": 0.0 if options.ranks >= MANY else 20.0,
        },
        gang=make_gang(str(options.ranks), [options.each or _share(client, options.ranks)]),
        chaos=True,
    )


@app.command("inject")
def inject(
    job: Annotated[
        str, typer.Argument(help="Id or name of a job that was submitted with --chaos.")
    ],
    fault: Annotated[
        FaultKind,
        typer.Option(
            help="Fault to inject.",
            parser=word_of(FaultKind),
            metavar=words_of(FaultKind),
        ),
    ] = FaultKind.KILL,
    rank: Annotated[
        int, typer.Option(help="Rank to inject the fault into, or into the node of the rank.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Inject one fault into a job that was submitted with --chaos.

    Example: karez chaos inject my-job --fault stop --rank 2
    """
    with Client() as client:
        (caused,) = client.inject_faults(job, [FaultSpec(what=fault, rank=rank)])
    if as_json:
        say(json.dumps({"what": caused.what, "rank": caused.rank, "at": caused.at}))
    else:
        say(f"{caused.what} to rank {rank}; see karez jobs receipts {job}")


def _mute(_: str) -> None:
    """Print no progress."""


def _show(figures: dict[str, Any]) -> None:
    recovery = figures["recovery_s"]
    rows = [
        ("faults caused", f"{figures['caused']} of {figures['asked']}"),
        ("recovered, median", _seconds(recovery["median"])),
        ("recovered, 99%", _seconds(recovery["p99"])),
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
    """Resources of one rank, such that all ranks fit into the CPUs of the pool."""
    ready = [node for node in client.pool() if node.state == NodeState.READY]
    cpus = sum(1 for node in ready for d in node.devices if d.kind == DeviceKind.CPU)
    if not cpus:
        raise BadRequest(
            problem="no node offers CPUs", fix="Give the resources of a rank with --each."
        )
    per_cpu = -(-ranks // cpus)
    return f"cpu={1 / per_cpu:.3f}" if per_cpu > 1 else "cpu=1"


app.command("cause", hidden=True)(by_old_name(inject, "chaos cause"))  # its name in karez 0.1
APPS = {"chaos": app}
