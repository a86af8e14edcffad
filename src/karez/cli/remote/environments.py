"""`karez environments`: the Python packages that jobs bring."""

from pathlib import Path
from typing import Annotated

import typer

from karez.cli.client_options import ArtifactName, Json, ProjectName, Yes
from karez.cli.output import json_out
from karez.cli.remote.artifacts import list_kinds, remove_artifact, show_added, show_artifact
from karez.cli.remote.transfers import upload
from karez.client.environment_files import PIP_FORMAT, plan_environment
from karez.core.artifacts import Artifact, ArtifactKind

app = typer.Typer(no_args_is_help=True, help="Python packages that jobs bring.")


@app.command("add")
def add(
    requirements: Annotated[Path, typer.Argument(help="File of packages, in pip's format.")],
    name: Annotated[str, typer.Option(help="Name of the environment.")],
    wheels: Annotated[
        Path | None,
        typer.Option(help="Folder of wheels, for nodes that reach no package index."),
    ] = None,
    project: ProjectName = "default",
    as_json: Json = False,
) -> None:
    """Add an environment: packages beside those of the nodes, such as torch.

    Each node makes it when a job first needs it. A file with hashes gives the same bytes on every
    node.

    Examples:
      karez environments add requirements.txt --name mine

      karez environments add requirements.txt --name mine --wheels wheels   # made by `pip wheel`
    """
    added = add_environment(requirements, wheels, name=name, project=project)
    if as_json:
        json_out(added)
    else:
        show_added(added)


def add_environment(
    requirements: Path, wheels: Path | None, *, name: str, project: str
) -> Artifact:
    """Upload an environment. Raises BadRequest."""
    plan = plan_environment(requirements, wheels)
    return upload(
        plan, name=name, kind=ArtifactKind.ENVIRONMENT, format=PIP_FORMAT, project=project
    )


@app.command("list")
def list_environments(as_json: Json = False) -> None:
    """List environments, newest first."""
    empty = "no environments; add one with `karez environments add`"
    list_kinds([ArtifactKind.ENVIRONMENT], as_json=as_json, empty=empty)


@app.command("show")
def show(artifact: ArtifactName, as_json: Json = False) -> None:
    """Show one environment with its packages."""
    show_artifact(artifact, as_json=as_json)


@app.command("remove")
def remove(artifact: ArtifactName, yes: Yes = False) -> None:
    """Remove an environment that no waiting or running job uses."""
    remove_artifact(artifact, yes=yes)


APPS = {"environments": app}
