"""`karez migrate verify`, `compare` and `check`: prove that a migration is lossless."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from karez.cli.client_options import Json
from karez.cli.offline.migrate.verify_options import Certificate, Report, VerifyOptions
from karez.cli.options import takes
from karez.cli.terminal import say


@takes(VerifyOptions)
def verify_command(options: VerifyOptions, context: typer.Context, as_json: Json = False) -> None:
    """Run a script before and after the migration, and report the first difference.

    Both runs get the same seeds. Every module's inputs, outputs and gradients, every optimizer's
    state and all losses are compared, each within what its data type and the reference's own
    run-to-run noise allow. Exit code 1 if any difference is larger.

    With --on the migrated script runs as a job on a cloud's pool, and its record is fetched; no
    cloud is needed otherwise.

    Example: karez migrate verify nanoGPT nanoGPT-npu --most 20 -- train.py --compile=False
    """
    from karez.cli.offline.migrate import verification  # noqa: PLC0415 - keeps --help fast

    _finish(verification.run_verify(options, context.args, quiet=as_json), as_json=as_json)


UNKNOWN_SIGNER = 3
"""Exit code of a check that found nothing wrong, and was not told by whom it should be signed."""


def compare_command(
    reference: Annotated[Path, typer.Argument(help="Reference record, or a dump of msprobe.")],
    target: Annotated[Path, typer.Argument(help="Record or dump to judge by the reference.")],
    again: Annotated[
        Path | None,
        typer.Option(help="Second reference run, to estimate run-to-run noise."),
    ] = None,
    rank: Annotated[int, typer.Option(help="Rank whose dump is compared.", min=0)] = 0,
    certificate: Certificate = None,
    report: Report = None,
    as_json: Json = False,
) -> None:
    """Compare two records of earlier runs, without running anything.

    A record is a folder under --keep of `karez migrate verify`, or what msprobe dumped on a GPU or
    an NPU (modules, functions or both; tensors, statistics or checksums). Exit code 1 if something
    differs by more than its data type allows.

    Example: karez migrate compare dumps-of-the-gpu dumps-of-the-npu --report compared.html
    """
    from karez.cli.offline.migrate import verification  # noqa: PLC0415 - keeps --help fast

    signed = verification.compare(
        reference, target, again, rank, (certificate, report), quiet=as_json
    )
    _finish(signed, as_json=as_json)


def check_command(
    certificate: Annotated[Path, typer.Argument(help="Certificate file to check.")],
    key: Annotated[
        str, typer.Option(help="Public key of the expected signer, in hexadecimal.")
    ] = "",
) -> None:
    """Check the signature of a certificate, offline.

    Anyone can make a key and sign with it: without --key, the exit code is 3.

    Example: karez migrate check nanogpt.certificate.json --key "$(cat migration.pub)"
    """
    from karez.cli.offline.migrate import certificate_check  # noqa: PLC0415 - keeps --help fast

    said, is_known = certificate_check.check(certificate, key)
    say(said)
    if not is_known:
        raise typer.Exit(UNKNOWN_SIGNER)


def _finish(signed: dict[str, Any], *, as_json: bool) -> None:
    """Print a certificate as JSON if asked; exit with code 1 if it is not lossless."""
    if as_json:
        say(json.dumps(signed, indent=1))
    if not signed["lossless"]:
        raise typer.Exit(1)
