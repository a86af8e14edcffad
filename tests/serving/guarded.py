"""Guardrails, and an engine that says what they look for."""

import json
from dataclasses import replace
from typing import Any

from aiohttp import web

from karez.core.guardrails import GuardAction, Guardrail, Side, TextPattern
from karez.core.routing import Table
from karez.serving.guarded_stream import GuardedStream
from karez.serving.guards import Guard
from tests.serving.callers import table

MASK = Guardrail(
    name="personal", action=GuardAction.MASK, patterns=(TextPattern.EMAIL, TextPattern.CARD)
)
BLOCK = Guardrail(name="secrets", patterns=(TextPattern.CREDENTIAL,), words=("falcon",))
COUNT = Guardrail(name="seen", action=GuardAction.COUNT, words=("karez",))
SAID = "Write to bob@example.com about 4111 1111 1111 1111 at noon."
MASKED = "Write to [email] about [card] at noon."


def guarded(url: str, *guardrails: Guardrail) -> Table:
    made = table(url)
    return replace(made, routes=(replace(made.routes[0], guardrails=guardrails),))


def events(text: str, size: int, **finish: Any) -> list[dict[str, Any]]:
    """The events of a chat that says a text in pieces of a size."""
    said = [text[at : at + size] for at in range(0, len(text), size)]
    deltas = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in said)]
    made = [{"id": "c", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    return [*made, {"id": "c", "choices": [{"index": 0, "delta": finish, "finish_reason": "stop"}]}]


class Saying:
    """An engine that says a text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked: list[dict[str, Any]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        kind = request.path.rpartition("/")[2]
        if body.get("stream"):
            return await self._stream(request, kind)
        usage = {"prompt_tokens": 1, "completion_tokens": 9}
        message = {"role": "assistant", "content": self.text}
        whole: dict[str, Any] = {"usage": usage, "model": body["model"]}
        if kind == "messages":
            whole |= {"type": "message", "content": [{"type": "text", "text": self.text}]}
        else:
            choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": {"a": 1}}
            whole |= {"choices": [choice]}
        return web.json_response(whole)

    async def _stream(self, request: web.Request, kind: str) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        made = events(self.text, 3) if kind != "messages" else self._messages()
        for event in made:
            head = f"event: {event['type']}\n" if "type" in event else ""
            await answer.write(f"{head}data: {json.dumps(event)}\n\n".encode())
        if kind != "messages":
            await answer.write(b"data: [DONE]\n\n")
        return answer

    def _messages(self) -> list[dict[str, Any]]:
        start = {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "chat"}
        usage = {"input_tokens": 1, "output_tokens": 1}
        pieces = [self.text[at : at + 3] for at in range(0, len(self.text), 3)]
        delta = {"type": "content_block_delta", "index": 0}
        block = {"type": "text", "text": ""}
        return [
            {"type": "message_start", "message": {**start, "usage": usage}},
            {
                "type": "content_block_start",
                "index": 0,
                "content_block": block,
            },
            *({**delta, "delta": {"type": "text_delta", "text": piece}} for piece in pieces),
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage},
            {"type": "message_stop"},
        ]


def through(path: str, *made: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a stream, once guardrails have read them."""
    stream = GuardedStream(Guard([MASK], Side.OUTPUT), path)
    out = b"".join(stream.pass_on(f"data: {json.dumps(one)}\n\n".encode()) for one in made)
    out += stream.finish()
    return [json.loads(event[6:]) for event in out.split(b"\n\n") if event]
