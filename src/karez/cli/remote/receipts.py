"""`karez receipts`: verify receipts of recoveries offline, and show the public key."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from karez.cli.client_options import Json, client
from karez.cli.output import json_out
from karez.client.address import state_folder
from karez.core.codec import from_json
from karez.core.errors import BadRequest, BrokenArtifact
from karez.core.receipts import Receipt, check, fingerprint

app = typer.Typer(no_args_is_help=True, help="Verify receipts of recoveries, offline.")


@app.command("verify")
def verify(
    file: Annotated[
        Path, typer.Argument(help="File with the output of `karez jobs receipts JOB --json`.")
    ],
    key: Annotated[
        str,
        typer.Option(
            help="Public key: 64 hex digits, or a file. Default: the key of this machine's cloud."
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Check that no receipt was altered and none in between is missing. No cloud is needed.

    Example: karez jobs receipts J --json > r.json; karez receipts verify r.json --key receipts.pub
    """
    public = _public_key(key)
    receipts = read_receipts(file)
    by_job: dict[str, list[Receipt]] = {}
    for receipt in receipts:
        by_job.setdefault(receipt.job, []).append(receipt)
    wrong = [fault for chain in by_job.values() for fault in check(chain, public)]
    _show(len(receipts), public, wrong, as_json=as_json)
    if wrong:
        raise typer.Exit(1)


def _show(count: int, public: bytes, wrong: list[str], *, as_json: bool) -> None:
    if as_json:
        name = fingerprint(public)
        result = {"receipts": count, "key": name, "wrong": wrong, "valid": not wrong}
        typer.echo(json.dumps(result, indent=2))
    else:
        for line in wrong:
            typer.echo(line, err=True)
        if not wrong:
            typer.echo(f"{count} receipts, signed by {fingerprint(public)}: all true")


@app.command("key")
def show_key(as_json: Json = False) -> None:
    """Print the public key that verifies the receipts of this cloud."""
    key = client().receipts_key()
    if as_json:
        json_out(key)
    else:
        typer.echo(key.public)


def read_receipts(file: Path) -> list[Receipt]:
    """Read receipts from a JSON file. Raises BadRequest."""
    try:
        items: Any = json.loads(file.read_text())
        if not isinstance(items, list):
            raise ValueError("it should be a list of receipts")
        fields = set(Receipt.__slots__)
        return [
            from_json(Receipt, {k: v for k, v in item.items() if k in fields}) for item in items
        ]
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
