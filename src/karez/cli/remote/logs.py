"""`karez logs`: print the output of a job or a service."""

import re
from typing import Annotated

import typer

from karez.cli.client_options import client
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
) -> None:
    """Print the output of all processes of a job or a service.

    Example: karez logs -f support-tune
    """
    try:
        pattern = re.compile(grep) if grep else None
    except re.error as error:
        raise BadRequest(problem=f"invalid pattern --grep {grep!r}: {error}") from error
    noun = _noun(name)
    for file, text in client().follow_logs(noun, name, follow=follow):
        for line in text.splitlines():
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
