"""`karez receipts`: verify receipts of recoveries offline, and show the public key."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from karez.cli.client_options import JobName, Json, client
from karez.cli.output import clock, json_out
from karez.cli.terminal import say
from karez.client.address import state_folder
from karez.core.api_models import ReceiptView
from karez.core.codec import from_json
from karez.core.errors import BadRequest, BrokenArtifact
from karez.core.receipts import (
    Receipt,
    ReceiptsHead,
    SignedReceipts,
    check,
    check_head,
    fingerprint,
)

ROUNDING = 1e-6
app = typer.Typer(no_args_is_help=True, help="Verify receipts of recoveries, offline.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a file tells of receipts."""

    receipts: tuple[Receipt, ...]
    head: ReceiptsHead | None = None
    wrong: tuple[str, ...] = ()
    """Figures and fields that do not follow from what is signed."""


@app.command("export")
def export(job: JobName) -> None:
    """Print all receipts of a job with their signed head, for `karez receipts verify`.

    Example: karez receipts export support-tune > receipts.json
    """
    json_out(client().signed_receipts(job))


@app.command("verify")
def verify(
    file: Annotated[
        Path, typer.Argument(help="File with the output of `karez receipts export JOB`.")
    ],
    key: Annotated[
        str,
        typer.Option(
            help="Public key: 64 hex digits, or a file. Default: the key of this machine's cloud."
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Check that no receipt was altered and none is missing. No cloud is needed.

    A list of `karez jobs receipts JOB --json` has no signed head: whether later receipts are
    missing cannot be told from it.

    Example: karez receipts export J > r.json; karez receipts verify r.json --key receipts.pub
    """
    public = _public_key(key)
    told = read_receipts(file)
    by_job: dict[str, list[Receipt]] = {}
    for receipt in told.receipts:
        by_job.setdefault(receipt.job, []).append(receipt)
    wrong = [*told.wrong, *(line for chain in by_job.values() for line in check(chain, public))]
    if told.head is not None:
        wrong += check_head(told.head, told.receipts, public)
    _show(told, public, wrong, as_json=as_json)
    if wrong:
        raise typer.Exit(1)


def _show(told: Told, public: bytes, wrong: list[str], *, as_json: bool) -> None:
    count, name = len(told.receipts), fingerprint(public)
    if as_json:
        result = {
            "receipts": count,
            "key": name,
            "wrong": wrong,
            "valid": not wrong,
            "complete": told.head is not None and not wrong,
        }
        say(json.dumps(result, indent=2))
        return
    for line in wrong:
        say(line, err=True)
    if wrong:
        return
    if told.head is None:
        say(f"{count} receipts, signed by {name}: none altered, none missing in between")
        say("whether later ones are missing is not known: use `karez receipts export`")
    else:
        when = clock(told.head.at)
        say(
            f"{count} receipts, signed by {name}: all true, and all that job {told.head.job} "
            f"({told.head.state}) had at {when}"
        )


@app.command("key")
def show_key(as_json: Json = False) -> None:
    """Print the public key that verifies the receipts of this cloud."""
    key = client().receipts_key()
    if as_json:
        json_out(key)
    else:
        say(key.public)


def read_receipts(file: Path) -> Told:
    """Read receipts from a JSON file. Raises BadRequest."""
    try:
        data: Any = json.loads(file.read_text())
        if isinstance(data, dict):
            signed = from_json(SignedReceipts, data)
            return Told(receipts=signed.receipts, head=signed.head)
        if not isinstance(data, list):
            raise ValueError("it should be receipts with their head, or a list of them")
        read = [_listed(item) for item in data]
    except (OSError, ValueError, RecursionError) as error:
        fix = "Write it with `karez receipts export JOB`."
        raise BadRequest(problem=f"{file}: {error}", fix=fix) from error
    return Told(
        receipts=tuple(receipt for receipt, _ in read),
        wrong=tuple(line for _, wrong in read for line in wrong),
    )


def _listed(item: Any) -> tuple[Receipt, list[str]]:
    """A receipt of a list, and what of its figures and fields does not follow from it."""
    shown = from_json(ReceiptView, item)
    names = set(Receipt.__slots__)
    fields = {name: value for name, value in asdict(shown).items() if name in names}
    receipt = Receipt(**fields)
    unknown = sorted(item.keys() - ReceiptView.__dataclass_fields__.keys())
    wrong = [f"{receipt.id}: {name} is no field of a receipt" for name in unknown]
    wrong += [
        f"{receipt.id}: {name} does not follow from what is signed"
        for name, value in (
            ("steps_lost", receipt.steps_lost),
            ("recovery_s", receipt.recovery_s),
        )
        if abs(getattr(shown, name) - value) > ROUNDING
    ]
    return receipt, wrong


def _public_key(text: str) -> bytes:
    own = state_folder() / "receipts.pub"
    if not text and not own.exists():
        raise BadRequest(
            problem="no public key is given, and no cloud on this machine has one",
            fix="Pass --key FILE; `karez receipts key` prints it where the cloud runs.",
        )
    file = Path(text) if text else own
    digits = file.read_text().strip() if file.is_file() else text.strip()
    try:
        public = bytes.fromhex(digits)
    except ValueError:
        public = b""
    if len(public) != 32:
        raise BrokenArtifact(name=text or str(own), problem="an Ed25519 key has 64 hex digits")
    return public


APPS = {"receipts": app}
