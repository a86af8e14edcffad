"""The client for the cloud in use; one per command."""

from functools import cache
from typing import Annotated

import typer

from karez.client.sdk import Client

Json = Annotated[bool, typer.Option("--json", help="For machines.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ProjectName = Annotated[str, typer.Option("--project", "-p", help="The project.")]


@cache
def client() -> Client:
    """Where KAREZ_URL and KAREZ_KEY, or the local cloud's files, point."""
    return Client()


def sure(question: str, *, yes: bool) -> None:
    """Ask before a loss. Exit code 1 on no."""
    if not yes and not typer.confirm(question):
        raise typer.Exit(1)
