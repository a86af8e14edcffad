"""`karez simulate verify-log`: replay a decision log."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from karez.cli.client_options import Json
from karez.cli.inventory_files import lines_of
from karez.cli.output import json_out
from karez.cli.terminal import say
from karez.core.errors import BadRequest

if TYPE_CHECKING:  # NumPy: only where something is simulated
    from karez.simulation.verify_log import LogVerification


def verify_log_command(
    file: Annotated[
        Path,
        typer.Argument(
            help="Decision log: logs/decisions.log of a cloud, or what "
            "`karez simulate queue --decision-log` wrote."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Replay a decision log, and report the first decision that differs.

    Exit code 1 if one differs. Example: karez simulate verify-log ~/.karez/logs/decisions.log
    """
    from karez.simulation.verify_log import verify_log  # noqa: PLC0415 - NumPy, only here

    with lines_of(file) as lines:
        try:
            result = verify_log(lines)
        except ValueError as error:
            raise BadRequest(problem=f"in {file}: {error}") from error
    if as_json:
        json_out(result)
    else:
        _show(result)
    if result.line is not None:
        raise typer.Exit(1)


def _show(result: "LogVerification") -> None:
    if result.line is None:
        say(f"{result.decisions} decisions after {result.steps} steps: all the same")
        return
    say(f"line {result.line} is not the same\n  written: {result.logged or 'nothing'}")
    say(f"  decided: {result.redone or 'nothing'}")
