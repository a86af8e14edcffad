"""`karez logs`: print the output of a job or a service."""

import re
import sys
from typing import Annotated

import typer

from karez.cli.client_options import client
from karez.cli.command_clock import now
from karez.cli.log_lines import LineAssembler
from karez.core.errors import BadRequest, NotFound

app = typer.Typer()


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="Id or name of a job or a service.")],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new output until the workload ends.")
    ] = False,
    grep: Annotated[
        str, typer.Option(help="Print only lines that match this regular expression.")
    ] = "",
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Print the output as it is, with all that steers a terminal."),
    ] = False,
) -> None:
    """Print the output of all processes of a job or a service.

    Lines come whole; of a progress bar, which is written again and again, the newest state every
    ten seconds.

    Example: karez logs -f support-tune
    """
    try:
        pattern = re.compile(grep) if grep else None
    except re.error as error:
        raise BadRequest(problem=f"invalid pattern --grep {grep!r}: {error}") from error
    lines = LineAssembler(colours=sys.stdout.isatty())
    for file, text in client().follow_logs(_noun(name), name, follow=follow):
        if raw:
            typer.echo(text, nl=False)
            continue
        for line in lines.add(file, text, now()):
            _show(file, line, pattern)
    for file, line in lines.end():
        _show(file, line, pattern)


def _show(file: str, line: str, pattern: re.Pattern[str] | None) -> None:
    if pattern is None or pattern.search(line):
        typer.echo(f"{file.split('.')[0]:>10} | {line}")


def _noun(name: str) -> str:
    try:
        client().job(name)
    except NotFound:
        client().service(name)
        return "services"
    return "jobs"


APPS = {"logs": app}
