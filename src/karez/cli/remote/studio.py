"""`karez studio`: one command from a table to a tuned, measured and served model."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from karez.cli.client_options import Json, client
from karez.cli.options import takes
from karez.cli.output import json_out, table
from karez.cli.remote.artifacts import Licence, Source
from karez.cli.remote.job_progress import watch_job
from karez.cli.remote.transfers import upload
from karez.cli.terminal import say
from karez.client.sdk import Client
from karez.client.studio import Studio
from karez.client.studio_plan import StudioPlan, StudioResult
from karez.core.engines import Task
from karez.core.jobs import Job, Scalar
from karez.core.names import printable

app = typer.Typer()
_DATA = (
    *("prompt", "answer", "instruction", "encoding", "bad_rows"),
    *("held_out", "validation", "similarity"),
)
_TUNE = ("steps", "epochs", "batch", "learning_rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudioOptions:
    """Options of `karez studio`."""

    path: Annotated[
        Path, typer.Argument(help="CSV, JSON lines, JSON or Parquet; a file or a folder.")
    ]
    name: Annotated[str, typer.Option(help="Name of the data set, and of the service.")]
    task: Annotated[
        Task, typer.Option(help="generate writes answers, classify names one of the labels.")
    ] = Task.GENERATE
    model: Annotated[
        str,
        typer.Option(
            help="Model to tune: an artifact, or a name of the catalogue; else one for the task."
        ),
    ] = ""
    prompt: Annotated[str, typer.Option(help="Column of the question.")] = ""
    answer: Annotated[str, typer.Option(help="Column of the answer or label.")] = ""
    instruction: Annotated[str, typer.Option(help="Text above each prompt.")] = ""
    encoding: Annotated[str, typer.Option(help="Encoding of text files; else UTF-8.")] = ""
    bad_rows: Annotated[str, typer.Option(help="refuse, or drop rows that cannot be used.")] = ""
    held_out: Annotated[
        float, typer.Option(help="Share of rows to measure on, if no file is for that; 0: a tenth.")
    ] = 0.0
    validation: Annotated[
        float, typer.Option(help="Share of rows to choose the epoch or the threshold by.")
    ] = 0.0
    similarity: Annotated[
        float, typer.Option(help="How alike rows stay on one side; 0: 0.7, 1: only equal ones.")
    ] = 0.0
    steps: Annotated[
        int, typer.Option(help="Steps of training; 0: three passes over the rows, 40 to 120.")
    ] = 0
    epochs: Annotated[
        int, typer.Option(help="Passes of a classifier over the rows; 0: 6, more of few rows.")
    ] = 0
    batch: Annotated[int, typer.Option(help="Rows of a step; 0: 8, of a classifier 32.")] = 0
    learning_rate: Annotated[float, typer.Option(help="Learning rate; 0: the recipe's.")] = 0.0
    rows: Annotated[
        int, typer.Option(help="Held-out rows to measure on; 0: 100, and all of a classifier.")
    ] = 0
    target_accuracy: Annotated[
        float,
        typer.Option(help="Share of answers to be right, as 0.98: how many rows can be answered."),
    ] = 0.0
    workers: Annotated[str, typer.Option(help="Workers of the training, as MIN:WANT.")] = "1:2"
    each: Annotated[
        str, typer.Option(help="What a worker needs, such as npu=1,cpu=1; else cpu=1.")
    ] = ""
    serve_as: Annotated[
        str, typer.Option(help="gguf, or hf to serve the tuned folder without a conversion.")
    ] = ""
    context: Annotated[
        int, typer.Option(help="Tokens of a prompt and its answer that the service takes.")
    ] = 2048
    converter: Annotated[
        str, typer.Option(help="Wheel file of the converter on the node's disk, to work offline.")
    ] = ""
    model_file: Annotated[
        str, typer.Option(help="Wheel file with the model on the node's disk, to work offline.")
    ] = ""
    source: Source = ""
    licence: Licence = ""
    project: Annotated[str, typer.Option("--project", "-p", help="Name of the project.")] = (
        "default"
    )


@app.command()
@takes(StudioOptions)
def studio(options: StudioOptions, as_json: Json = False) -> None:
    """Make a data set of a table, tune a model on it, measure the model and serve it.

    Ctrl-C ends the watching, and not the job that runs. The same command again goes on where it
    stopped, and does again only what another setting changes.

    Example: karez studio tickets.csv --name desk --prompt subject --answer queue
    """
    result = Studio(
        client=client(),
        plan=_plan(options),
        watch=None if as_json else _watch,
        send=None if as_json else upload,
        say=(lambda _: None) if as_json else _say,
    ).run()
    if as_json:
        json_out(result)
    else:
        _show(options, result)


def _plan(options: StudioOptions) -> StudioPlan:
    def chosen(names: tuple[str, ...]) -> dict[str, Scalar]:
        return {name: value for name in names if (value := getattr(options, name))}

    return StudioPlan(
        path=options.path,
        name=options.name,
        task=options.task,
        model=options.model,
        project=options.project,
        source=options.source,
        licence=options.licence,
        data_settings=chosen(_DATA),
        tune_settings=chosen(_TUNE),
        rows=options.rows,
        target_accuracy=options.target_accuracy,
        workers=options.workers,
        each=options.each,
        serve_as=options.serve_as,
        context=options.context,
        converter=options.converter,
        model_file=options.model_file,
    )


def _watch(remote: Client, ident: str) -> Job:
    return watch_job(remote, ident)


def _say(text: str) -> None:
    if text:
        say(text)


def _show(options: StudioOptions, result: StudioResult) -> None:
    rows = []
    for role, shown in (("base", "base"), ("model", "tuned")):
        measured: dict[str, Any] = result.measured[role]
        low, high = measured["accuracy_95"]
        accuracy = f"{measured['accuracy']:.1%} ({low:.1%} to {high:.1%})"
        rows.append((shown, f"{measured['loss']:.3f}", accuracy, f"{measured['f1']:.1%}"))
    f1 = "F1 of labels" if options.task == Task.CLASSIFY else "F1 of words"
    table(("model", "held-out loss", "right (95% interval)", f1), rows, empty="")
    if "measured_as" in result.measured["base"]:
        say(f"The base is measured by {result.measured['base']['measured_as']}.")
    if "paired" in result.measured:
        say(f"Tuned and base: {result.measured['paired']['words']}")
    if "selective" in result.measured["model"]:
        say(f"With a threshold: {result.measured['model']['selective']['words']}")
    service = client().service(result.service).spec.name
    held_out = client().artifact_file(result.data, "held_out.jsonl").decode()
    asked = json.loads(held_out.split("\n", 1)[0])["messages"]
    question = next((one["content"] for one in asked if one["role"] == "user"), "")
    text = shlex.quote("\n".join(one["content"] for one in asked[:-1]))
    say(f"\n{service} serves it at {client().address.gateway}; ask it what it was not trained on:")
    if options.task == Task.CLASSIFY:
        say(f"  karez classify {service} -- {text}")
    else:
        say(f"  karez chat {service} {shlex.quote(question)} --temperature 0")
    say(f"  expected: {printable(asked[-1]['content'])[:200]}")
    say(f"Rows and labels: karez data preview {options.name}")
    say(f"report.html with curves and answers: karez artifacts download {result.report} FOLDER")


APPS = {"studio": app}
