"""`karez receipts verify`, and a job's recoveries as a table, a timeline and figures."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from karez.cli.client_options import Json, client
from karez.cli.output import clock, json_out, table
from karez.client.address import state_folder
from karez.core.api_models import ReceiptView
from karez.core.codec import from_json
from karez.core.errors import BadRequest, BrokenArtifact
from karez.core.receipts import Receipt, check, fingerprint
from karez.core.units import show_seconds

app = typer.Typer(no_args_is_help=True, help="Check receipts of recoveries, offline.")
WIDTH = 56
"""Columns of a timeline's bar."""


@app.command("verify")
def verify(
    file: Annotated[Path, typer.Argument(help="What `karez jobs receipts JOB --json` printed.")],
    key: Annotated[
        str, typer.Option(help="Public key: 64 hex digits, or a file. Default: this cloud's.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Check signatures, and that no receipt was altered or is missing in between. No cloud needed.

    Example: karez jobs receipts J --json > r.json; karez receipts verify r.json --key receipts.pub
    """
    public = _public_key(key)
    receipts = read_receipts(file)
    by_job: dict[str, list[Receipt]] = {}
    for receipt in receipts:
        by_job.setdefault(receipt.job, []).append(receipt)
    wrong = [fault for found in by_job.values() for fault in check(found, public)]
    if as_json:
        name = fingerprint(public)
        told = {"receipts": len(receipts), "key": name, "wrong": wrong, "valid": not wrong}
        typer.echo(json.dumps(told, indent=2))
    else:
        for line in wrong:
            typer.echo(line, err=True)
        if not wrong:
            typer.echo(f"{len(receipts)} receipts, signed by {fingerprint(public)}: all true")
    if wrong:
        raise typer.Exit(1)


@app.command("key")
def show_key(as_json: Json = False) -> None:
    """This cloud's public key, to hand to whoever wants to check."""
    found = client().receipts_key()
    if as_json:
        json_out(found)
    else:
        typer.echo(found.public)


def show_receipts(job: str, as_json: Json = False) -> None:
    """A job's recoveries: detected, decided, restored, steps lost."""
    found = client().receipts(job)
    if as_json:
        json_out(found)
        return
    rows = [
        (
            r.id,
            r.code,
            r.rung,
            r.source,
            ",".join(map(str, r.ranks)),
            r.cause[:50],
            show_seconds(r.decided_at - r.detected_at),
            show_seconds(max(0.0, r.restored_at - r.detected_at)),
            show_seconds(r.recovery_s),
            f"{r.step_before} -> {r.step_restored}",
            r.steps_lost,
        )
        for r in found
    ]
    heads = (
        "receipt",
        "fault",
        "rung",
        "state from",
        "ranks",
        "cause",
        "decided",
        "restored",
        "first step",
        "steps",
        "lost",
    )
    table(heads, rows, empty="no recoveries: nothing went wrong")


def show_timeline(job: str) -> None:
    """Draw each recovery: how long until it was decided, restored, and a step was complete."""
    found = client().receipts(job)
    if not found:
        typer.echo("no recoveries: nothing went wrong")
        return
    longest = max(receipt.recovery_s for receipt in found)
    typer.echo(f"{'':19}  0 {'':{WIDTH - 12}} {show_seconds(longest):>8}")
    for receipt in found:
        typer.echo(
            f"{clock(receipt.detected_at):19}  {bar(receipt, longest)} "
            f"{receipt.code}, {receipt.rung}, {receipt.steps_lost} lost"
        )
    typer.echo(f"{'':19}  - confirmed, = decided, r restored, s first step complete")


def bar(receipt: ReceiptView, longest_s: float) -> str:
    """One recovery as a bar of up to WIDTH columns, to scale."""
    ends = (
        ("-", max(receipt.confirmed_at, receipt.detected_at)),
        ("=", receipt.decided_at),
        ("r", receipt.restored_at),
        ("s", receipt.resumed_at),
    )
    drawn = ""
    for sign, end in ends:
        until = round(WIDTH * max(0.0, end - receipt.detected_at) / max(longest_s, 1e-9))
        drawn += sign * (until - len(drawn))
    return f"{drawn or 's':{WIDTH}}"


def show_goodput(job: str, as_json: Json = False) -> None:
    """How much of a job's time went into steps that count, and what each rung took."""
    found = client().goodput(job)
    if as_json:
        json_out(found)
        return
    rows: list[tuple[str, object]] = [
        ("goodput", f"{100 * found.goodput:.2f}%"),
        ("time", show_seconds(found.elapsed_s)),
        ("lost", show_seconds(found.lost_s)),
        ("interruptions", found.interruptions),
        ("restarts of the whole job", found.restarts),
        ("longest time without one", show_seconds(found.longest_run_s)),
        ("steps done again", found.steps_lost),
        ("mean recovery", show_seconds(found.mean_recovery_s)),
    ]
    rows += [
        (
            f"by {r.rung}",
            f"{r.count}: {show_seconds(r.median_s)} median, {show_seconds(r.longest_s)} longest",
        )
        for r in found.rungs
    ]
    table(("", ""), rows, empty="")


def read_receipts(file: Path) -> list[Receipt]:
    """Receipts from JSON. Raises BadRequest."""
    try:
        found: Any = json.loads(file.read_text())
        if not isinstance(found, list):
            raise ValueError("it should be a list of receipts")
        known = set(Receipt.__slots__)
        return [from_json(Receipt, {k: v for k, v in one.items() if k in known}) for one in found]
    except (OSError, ValueError, AttributeError) as error:
        fix = "Write it with `karez jobs receipts JOB --json`."
        raise BadRequest(problem=f"{file}: {error}", fix=fix) from error


def _public_key(text: str) -> bytes:
    own = state_folder() / "receipts.pub"
    if not text and not own.exists():
        raise BadRequest(
            problem="no public key is given, and no cloud on this machine has one",
            fix="Pass --key FILE; `karez receipts key` prints it where the cloud runs.",
        )
    place = Path(text) if text else own
    digits = place.read_text().strip() if place.is_file() else text.strip()
    try:
        public = bytes.fromhex(digits)
    except ValueError:
        public = b""
    if len(public) != 32:
        raise BrokenArtifact(name=text or str(own), problem="an Ed25519 key has 64 hex digits")
    return public


APPS = {"receipts": app}
