"""Options that most commands share, and the client of the cloud in use."""

from functools import cache
from typing import Annotated

import typer

from karez.client.sdk import Client

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
JobName = Annotated[str, typer.Argument(help="Id or name of the job.")]
ServiceName = Annotated[str, typer.Argument(help="Id or name of the service.")]
NodeName = Annotated[str, typer.Argument(help="Name of the node.")]
ArtifactName = Annotated[str, typer.Argument(help="Id or name of the artifact.")]
ProjectName = Annotated[str, typer.Option("--project", "-p", help="Name of the project.")]


@cache
def client() -> Client:
    """Client of the cloud that KAREZ_URL and KAREZ_KEY, or the local cloud's files, name."""
    return Client()


def confirm(question: str, *, yes: bool) -> None:
    """Ask before a loss, unless `yes`. Exit code 1 if the answer is no."""
    if not yes and not typer.confirm(question):
        raise typer.Exit(1)
