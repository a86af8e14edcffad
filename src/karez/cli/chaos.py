"""`karez chaos`: faults on purpose, and what they cost."""

import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any, TypeVar

import typer

from karez.cli.cloud import start_cloud, stop_cloud
from karez.cli.connect import Json
from karez.cli.show import table
from karez.client import calls
from karez.client.address import find_address
from karez.client.sdk import Client
from karez.core.api_models import ReceiptView
from karez.core.chaos import HEALED, FaultSpec, InjectedFault, parse_faults, plan_faults
from karez.core.errors import BadRequest, Failed
from karez.core.gang_syntax import make_gang
from karez.core.ports import FaultKind
from karez.core.resources import DeviceKind, NodeState
from karez.core.units import show_seconds
from karez.core.workloads import ENDED, Job, JobSpec, State, WorkloadKind

T = TypeVar("T")
app = typer.Typer(no_args_is_help=True, help="Break jobs on purpose. For admins.")
Say = Callable[[str], object]
HEAL_S = 120.0
"""How long one recovery may take before the run is called failed."""
MANY = 4
"""Fewer ranks than this wait a little in each step: they are so fast that the gang would end."""
STEPS_EACH = 40
"""Steps of the gang for each fault, so that it does not end before the last."""


@dataclass(slots=True)
class _Run:
    """What happened so far."""

    caused: list[tuple[InjectedFault, ReceiptView | None]] = field(default_factory=list)
    """Each fault with the receipt of its recovery, where it needs one."""
    seconds: list[float] = field(default_factory=list)


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
        "steps": STEPS_EACH * len(wanted) + 60, "width": width, "mode": mode, "seed": seed + 1,
        "batch": max(32, 4 * ranks), "pause_ms": 0.0 if ranks >= MANY else 20.0,
    }  # fmt: skip
    with _some_cloud(say), Client() as client:
        gang = make_gang(str(ranks), [each or _share(client, ranks)])
        spec = JobSpec(
            name="chaos", kind=WorkloadKind.TRAIN, recipe="proving-ground", settings=ground,
            gang=gang, chaos=True,
        )  # fmt: skip
        figures = _compare(client, spec, plan_faults(wanted, ranks=ranks, seed=seed), say)
    figures |= {"asked": len(wanted), "ranks": ranks, "faults": faults, "seed": seed, "mode": mode}
    if report is not None:
        report.write_text(json.dumps(figures, indent=2) + "\n")
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
    else:
        _show(figures)
    if not figures["passed"]:
        raise typer.Exit(1)


@app.command("cause")
def cause(
    job: Annotated[str, typer.Argument(help="A job that was submitted with --chaos.")],
    fault: Annotated[FaultKind, typer.Option(help="What to do to it.")] = FaultKind.KILL,
    rank: Annotated[int, typer.Option(help="To which rank, or where it stands.")] = 0,
    as_json: Json = False,
) -> None:
    """Cause one fault in a job that allows it.

    Example: karez chaos cause my-job --fault stop --rank 2
    """
    with Client() as client:
        (caused,) = client.call(calls.harm(job, [FaultSpec(what=fault, rank=rank)]))
    if as_json:
        typer.echo(json.dumps({"what": caused.what, "rank": caused.rank, "at": caused.at}))
    else:
        typer.echo(f"{caused.what} to rank {rank}; see karez jobs receipts {job}")


def _compare(
    client: Client, spec: JobSpec, groups: Sequence[Sequence[FaultSpec]], say: Say
) -> dict[str, Any]:
    """One run in peace, one with faults; their figures."""
    say(f"{spec.gang.want} ranks, {spec.settings['steps']} steps, undisturbed")
    calm = client.wait(client.submit(spec).id)
    say(f"the same with {sum(map(len, groups))} faults")
    told = _Run()
    job = client.submit(spec)
    try:
        _disturb(client, job, groups, told, say)
        return _figures(client, calm, client.wait(job.id), told)
    except BaseException:
        client.call(calls.cancel(job.id))  # nothing of it is left behind
        raise


def _mute(_: str) -> None:
    """Nothing but the figures is printed."""


def _disturb(
    client: Client, job: Job, groups: Sequence[Sequence[FaultSpec]], told: _Run, say: Say
) -> None:
    """Cause one group of faults after another, each once the gang has got over the one before."""
    number = 0
    for group in groups:
        number += len(group)
        before = _wait_at_work(client, job, after=client.job(job.id).status.step)
        if before.state in ENDED:
            return  # it was faster than the faults
        known = len(client.call(calls.receipts(job.id)))
        caused = client.call(calls.harm(job.id, list(group)))
        receipt = None
        if any(spec.what in HEALED for spec in group):
            receipt = _wait_for_receipt(client, job, known)
            if receipt is None:
                return
            told.seconds.append(receipt.resumed_at - caused[0].at)
        told.caused += [(one, receipt) for one in caused]
        took = show_seconds(told.seconds[-1]) if receipt is not None else "not noticed"
        say(f"{number:4}  {', '.join(f'{c.what} rank {c.rank}' for c in caused)}: {took}")


def _wait_at_work(client: Client, job: Job, *, after: int) -> Job:
    """Until the gang runs and has made a step more."""

    def at_work() -> Job | None:
        now = client.job(job.id)
        if now.state in ENDED:
            return now
        is_going = now.state == State.RUNNING and now.status.step > after
        return now if is_going else None

    return _wait(at_work, f"{job.id} to get on")


def _wait_for_receipt(client: Client, job: Job, known: int) -> ReceiptView | None:
    """The receipt of what was just caused; None if the job was done before it mattered."""

    def written() -> tuple[ReceiptView | None] | None:
        receipts = client.call(calls.receipts(job.id))
        if len(receipts) > known:
            return (receipts[-1],)
        ended = client.job(job.id)
        if ended.state in ENDED - {State.SUCCEEDED}:
            reason = f"{ended.status.end}: {ended.status.reason}"
            raise Failed(noun="job", name=job.id, reason=f"it ended in a recovery: {reason}")
        return (None,) if ended.state == State.SUCCEEDED else None

    return _wait(written, "a receipt")[0]


def _wait(what: Callable[[], T | None], words: str) -> T:
    deadline = time.monotonic() + HEAL_S  # noqa: TID251 - a command's own clock
    while (found := what()) is None:
        if time.monotonic() > deadline:  # noqa: TID251 - as above
            raise Failed(noun="chaos", name="run", reason=f"waited {HEAL_S:.0f} s for {words}.")
        time.sleep(0.05)  # noqa: TID251 - as above
    return found


def _figures(client: Client, calm: Job, job: Job, told: _Run) -> dict[str, Any]:
    """The comparison, and what recoveries cost."""
    losses = [
        {(row.step, row.rank): row.loss for row in client.call(calls.metrics(one.id, -1))}
        for one in (calm, job)
    ]
    digests = [_digest(client, one) for one in (calm, job)]
    receipts = client.call(calls.receipts(job.id))
    goodput = client.call(calls.goodput(job.id))
    lost = [receipt.steps_lost for receipt in receipts]
    allowed = all(
        receipt.steps_lost <= max(1, receipt.cause.count("; then ") + 1) for receipt in receipts
    )
    same = losses[0] == losses[1] and bool(losses[0])
    wall = [((one.ended_at or 0.0) - (one.started_at or 0.0)) for one in (calm, job)]
    return {
        "recovery_s": _spread(told.seconds),
        "detected_to_step_s": _spread([receipt.recovery_s for receipt in receipts]),
        "by_fault": {
            what.value: _spread(
                [r.resumed_at - c.at for c, r in told.caused if r is not None and c.what == what]
            )
            for what in dict.fromkeys(c.what for c, _ in told.caused)
        },
        "by_rung": {rung.rung: rung.count for rung in goodput.rungs},
        "caused": len(told.caused),
        "receipts": len(receipts),
        "steps": len({step for step, _ in losses[0]}),
        "steps_lost_max": max(lost, default=0),
        "steps_lost_total": sum(lost),
        "losses_identical": same,
        "weights_identical": digests[0] == digests[1] and bool(digests[0]),
        "restarts": job.status.retries,
        "goodput": round(goodput.goodput, 5),
        "wall_s": {"calm": round(wall[0], 2), "faults": round(wall[1], 2)},
        "jobs": {"calm": calm.id, "faults": job.id},
        "passed": same and digests[0] == digests[1] and allowed,
    }


def _spread(seconds: Sequence[float]) -> dict[str, float | int | None]:
    if not seconds:
        return {"n": 0, "median": None, "p99": None, "max": None}
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, -(-99 * len(ordered) // 100) - 1)]
    return {
        "n": len(ordered),
        "median": round(median(ordered), 4),
        "p99": round(p99, 4),
        "max": round(ordered[-1], 4),
    }


def _digest(client: Client, job: Job) -> str:
    ident = job.status.outputs.get("weights", "")
    if not ident:
        return ""
    artifact = client.call(calls.artifact(ident))
    return str(artifact.spec.facts.get("weights_sha256", ""))


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
    ready = [node for node in client.call(calls.pool()) if node.state == NodeState.READY]
    cpus = sum(1 for node in ready for d in node.devices if d.kind == DeviceKind.CPU)
    if not cpus:
        raise BadRequest(problem="no node offers CPUs", fix="Say what a rank needs with --each.")
    per_cpu = -(-ranks // cpus)
    return f"cpu={1 / per_cpu:.3f}" if per_cpu > 1 else "cpu=1"


@contextmanager
def _some_cloud(say: Say) -> Iterator[None]:
    """The cloud in use, or one of its own for as long as this lasts."""
    if find_address().is_up or "KAREZ_URL" in os.environ:  # noqa: TID251 - the client's door
        yield
        return
    with tempfile.TemporaryDirectory(prefix="kz-") as folder:
        ports = _free_ports(3)
        names = ("KAREZ_PORT", "KAREZ_GATEWAY_PORT", "KAREZ_RAY_PORT")
        env = {"KAREZ_HOME": f"{folder}/home", **dict(zip(names, map(str, ports), strict=True))}
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
