"""`karez logs NAME`."""

import re
from typing import Annotated

import typer

from karez.cli.client_options import client
from karez.core.errors import BadRequest, NotFound

app = typer.Typer()


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="A job or a service, by name or id.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay until it ends.")] = False,
    grep: Annotated[str, typer.Option(help="Only lines that match this pattern.")] = "",
) -> None:
    """Print what a job's or a service's processes wrote.

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
