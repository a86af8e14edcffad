"""`karez classify`: labels of texts from a deployed classifier, through the gateway."""

import sys
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
import typer

from karez.cli.client_options import Json, client
from karez.cli.options import takes
from karez.cli.output import json_out, table
from karez.cli.remote.chat import refusal
from karez.core.errors import Unreachable
from karez.core.names import printable

app = typer.Typer()
SHOWN = 60
"""Characters of a text in the table."""
LIMIT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyOptions:
    """Options of `karez classify`."""

    service: Annotated[str, typer.Argument(help="Name of the service.")]
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts; without them, one of each line of stdin.")
    ] = None
    top: Annotated[int, typer.Option(min=1, help="Labels of each text, the likeliest first.")] = 1


@app.command()
@takes(ClassifyOptions)
def classify(options: ClassifyOptions, as_json: Json = False) -> None:
    """Ask a deployed classifier for the labels of texts, and how sure it is.

    Example: karez classify desk "where is my card?"
    """
    texts = options.texts or [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
    rows: list[dict[str, Any]] = []
    for at in range(0, len(texts), PART):
        rows += _labels(options.service, texts[at : at + PART], options.top)
    if as_json:
        json_out(rows)
        return
    shown = [
        (printable(row["text"])[:SHOWN], printable(best["label"]), f"{best['score']:.1%}")
        for row in rows
        for best in row["labels"]
    ]
    table(("text", "label", "sure"), shown, empty="There are no texts.")


PART = 512
"""Texts of one request."""


def _labels(service: str, texts: list[str], top: int) -> list[dict[str, Any]]:
    """Each text with its likeliest labels. Raises the gateway's error, or Unreachable."""
    address = client().address
    try:
        answer = httpx.post(
            f"{address.gateway}/classify",
            json={"model": service, "input": texts},
            headers={"authorization": f"Bearer {address.key}"},
            timeout=LIMIT_S,
        )
    except httpx.TransportError as error:
        raise Unreachable(what_is_it="The gateway", address=address.gateway) from error
    if answer.is_error:
        raise refusal(answer)
    told = answer.json()
    return [
        {"text": text, "labels": _best(told["labels"], row["probs"])[:top]}
        for text, row in zip(texts, told["data"], strict=True)
    ]


def _best(labels: list[str], chances: list[float]) -> list[dict[str, Any]]:
    ranked = sorted(zip(labels, chances, strict=True), key=lambda one: -one[1])
    return [{"label": label, "score": chance} for label, chance in ranked]


APPS = {"classify": app}
