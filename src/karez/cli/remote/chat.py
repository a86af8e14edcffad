"""`karez chat`: talk to a deployed model through the gateway."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import httpx
import typer

from karez.cli.client_options import client
from karez.cli.options import takes
from karez.cli.terminal import say
from karez.client.answers import error_of
from karez.core.errors import KarezError, Remote, Unreachable

app = typer.Typer()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions:
    """Options of `karez chat`."""

    service: Annotated[str, typer.Argument(help="Name of the service.")]
    message: Annotated[
        str, typer.Argument(help="One message to send; without a message, start a conversation.")
    ] = ""
    system: Annotated[str, typer.Option(help="System prompt of the conversation.")] = ""
    max_tokens: Annotated[int, typer.Option(help="Maximum number of tokens of an answer.")] = 256
    temperature: Annotated[
        float, typer.Option(help="Sampling temperature; 0: always the most likely token.")
    ] = 0.7


@app.command()
@takes(ChatOptions)
def chat(options: ChatOptions) -> None:
    """Chat with a deployed model through the gateway. Ctrl-D ends a conversation."""
    settings = {
        "model": options.service,
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "stream": True,
    }
    history = [{"role": "system", "content": options.system}] if options.system else []
    while True:
        try:
            text = options.message or typer.prompt("you", prompt_suffix="> ")
        except (typer.Abort, EOFError):
            say()
            return
        history.append({"role": "user", "content": text})
        body = {**settings, "messages": history}
        answer = _print_stream(body)
        history.append({"role": "assistant", "content": answer})
        if options.message:
            return


def _print_stream(body: dict[str, object]) -> str:
    answer = ""
    for piece in stream(body):
        answer += piece
        say(piece, nl=False)
    say()
    return answer


def stream(body: dict[str, object]) -> Iterator[str]:
    """Yield the pieces of a streamed answer. Raises the gateway's error, or Unreachable."""
    address = client().address
    headers = {"authorization": f"Bearer {address.key}"}
    try:
        with httpx.stream(
            "POST", f"{address.gateway}/chat/completions", json=body, headers=headers, timeout=600.0
        ) as answer:
            if answer.is_error:
                answer.read()
                raise refusal(answer)
            for line in answer.iter_lines():
                if line.startswith("data:") and line[5:].strip() != "[DONE]":
                    for choice in json.loads(line[5:]).get("choices", ()):
                        yield choice.get("delta", {}).get("content") or ""
    except httpx.TransportError as error:
        raise Unreachable(what_is_it="The gateway", address=address.gateway) from error


def refusal(answer: httpx.Response) -> KarezError:
    """The gateway's error of an answer."""
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
