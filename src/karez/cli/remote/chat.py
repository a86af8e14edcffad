"""`karez chat SERVICE`."""

import json
from collections.abc import Iterator
from typing import Annotated

import httpx
import typer

from karez.cli.client_options import client
from karez.client.answers import error_of
from karez.core.errors import KarezError, Remote, Unreachable

app = typer.Typer()


@app.command()
def chat(
    service: str,
    message: Annotated[str, typer.Argument(help="Say this once; without it, a conversation.")] = "",
    system: Annotated[str, typer.Option(help="System prompt.")] = "",
    max_tokens: Annotated[int, typer.Option(help="At most.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.7,
) -> None:
    """Talk to a deployed model through the gateway. Ctrl-D ends a conversation."""
    history = [{"role": "system", "content": system}] if system else []
    while True:
        try:
            text = message or typer.prompt("you", prompt_suffix="> ")
        except (typer.Abort, EOFError):
            typer.echo()
            return
        history.append({"role": "user", "content": text})
        body = {
            "model": service,
            "messages": history,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "stream": True,
        }
        answer = ""
        for piece in stream(body):
            answer += piece
            typer.echo(piece, nl=False)
        typer.echo()
        history.append({"role": "assistant", "content": answer})
        if message:
            return


def stream(body: dict[str, object]) -> Iterator[str]:
    """The pieces of a streamed answer. Raises the gateway's error, or Unreachable."""
    address = client().address
    headers = {"authorization": f"Bearer {address.key}"}
    try:
        with httpx.stream(
            "POST", f"{address.gateway}/chat/completions", json=body, headers=headers, timeout=600.0
        ) as answer:
            if answer.is_error:
                answer.read()
                raise _refusal(answer)
            for line in answer.iter_lines():
                if line.startswith("data:") and line[5:].strip() != "[DONE]":
                    for choice in json.loads(line[5:]).get("choices", ()):
                        yield choice.get("delta", {}).get("content") or ""
    except httpx.TransportError as error:
        raise Unreachable(what_is_it="The gateway", address=address.gateway) from error


def _refusal(answer: httpx.Response) -> KarezError:
    try:
        message = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return error_of(answer)
    return Remote(
        kind="gateway",
        http_status=answer.status_code,
        problem=message,
        fix="`karez services list` shows what there is.",
    )


APPS = {"chat": app}
