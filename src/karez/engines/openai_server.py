"""HTTP in OpenAI's form before a model that has no server of its own."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from karez.core.engines import TOKENS
from karez.engines.engine_http import EngineFailed, problem, read_body
from karez.engines.generation import (
    REFUSED,
    Asked,
    Backend,
    BadField,
    Codec,
    Piece,
    asked_of,
)
from karez.engines.text_pieces import TextPieces

TOKEN_CHARS = 64
"""Characters of a token at most, on average of a text: long ones are spaces and lines."""
CHAT, TEXT = "chat.completion", "text_completion"


@dataclass(slots=True, kw_only=True)
class _Answer:
    """One answer that is being computed."""

    asked: Asked
    ident: str
    queue: asyncio.Queue[Piece] = field(default_factory=asyncio.Queue)
    tokens: int = 0
    told: int = 0
    """Of these, the tokens that the events of a stream have counted."""
    end: str = ""

    def count(self) -> dict[str, int]:
        """The tokens since the last event: several may make one text, or none."""
        new, self.told = self.tokens - self.told, self.tokens
        return {TOKENS: new}

    @property
    def usage(self) -> dict[str, Any]:
        prompt = len(self.asked.tokens)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.tokens,
            "total_tokens": prompt + self.tokens,
        }


@dataclass(slots=True, kw_only=True)
class TextServer:
    """Answers requests for text."""

    alias: str
    context: int
    """Tokens of prompt and answer."""
    adapters: tuple[str, ...]
    backend: Backend
    codec: Codec
    clock: Callable[[], float]
    """UTC epoch seconds."""

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        return [
            web.post("/v1/chat/completions", self._chat),
            web.post("/v1/completions", self._complete),
            web.post("/tokenize", self._tokenize),
        ]

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await read_body(request)
        text = body.get("content")
        if not isinstance(text, str):
            raise BadField("content is a text")
        self._check_size(text)
        return web.json_response({"tokens": await asyncio.to_thread(self.codec.encode, text)})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request)
        messages, tools = body.get("messages"), body.get("tools") or []
        if not isinstance(messages, list) or not messages or not isinstance(tools, list):
            raise BadField("messages is a list of messages, and tools one of tools")
        if not all(isinstance(one, dict) and isinstance(one.get("role"), str) for one in messages):
            raise BadField("each message has a role")
        goes_on = messages[-1]["role"] == "assistant"
        self._check_size(json.dumps(messages))
        tokens = await asyncio.to_thread(self.codec.chat, messages, tools, goes_on=goes_on)
        return await self._answer(request, body, tokens, CHAT)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request)
        prompt = body.get("prompt")
        if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
            (prompt,) = prompt
        if isinstance(prompt, str):
            self._check_size(prompt)
            tokens: Sequence[int] = await asyncio.to_thread(self.codec.encode, prompt)
        elif isinstance(prompt, list) and prompt and all(type(one) is int for one in prompt):
            tokens = prompt
            if not all(0 <= token < self.codec.size for token in tokens):
                raise BadField(f"the tokens of this model are from 0 to {self.codec.size - 1}")
        else:
            raise BadField("prompt is one text, or the tokens of one")
        return await self._answer(request, body, tokens, TEXT)

    def _check_size(self, text: str) -> None:
        """Refuse at once what no context holds: to encode it takes seconds. Raises BadField."""
        if len(text) > self.context * TOKEN_CHARS:
            raise BadField(
                f"the prompt has {len(text)} characters; the context of this model is "
                f"{self.context} tokens"
            )

    async def _answer(
        self, request: web.Request, body: Mapping[str, Any], tokens: Sequence[int], kind: str
    ) -> web.StreamResponse:
        model = body.get("model")
        asked = asked_of(
            body,
            tokens,
            context=self.context,
            adapter=model if model in self.adapters else "",
            has_schemas=self.backend.has_schemas,
        )
        answer = _Answer(asked=asked, ident=f"cmpl-{secrets.token_hex(12)}")
        head = {
            "id": answer.ident,
            "object": kind,
            "created": int(self.clock()),
            "model": model if isinstance(model, str) else self.alias,
        }
        give_up = self.backend.begin(asked, answer.queue.put_nowait)
        try:
            if body.get("stream"):
                return await self._stream(request, body, answer, head, kind)
            text = await self._whole(answer)
            message = {"role": "assistant", "content": text}
            said = {"message": message} if kind == CHAT else {"text": text}
            choice = {"index": 0, "finish_reason": answer.end, "logprobs": None, **said}
            return web.json_response({**head, "choices": [choice], "usage": answer.usage})
        finally:
            give_up()

    async def _next(self, answer: _Answer) -> list[int]:
        """The tokens of the engine's next piece that are text. Raises EngineFailed."""
        piece = await answer.queue.get()
        if piece.end == REFUSED:
            raise BadField(piece.problem)
        if piece.end == "error":
            raise EngineFailed(piece.problem)
        answer.tokens += len(piece.tokens)
        answer.end = piece.end
        if answer.asked.ignores_end:
            return list(piece.tokens)
        return [token for token in piece.tokens if token not in self.backend.end_tokens]

    async def _whole(self, answer: _Answer) -> str:
        """The text of an answer, once it is complete."""
        if answer.asked.stops:
            return "".join([text async for text in self._texts(answer)])
        tokens: list[int] = []
        while not answer.end:
            tokens += await self._next(answer)
        return self.codec.decode(tokens)

    async def _texts(self, answer: _Answer) -> AsyncIterator[str]:
        """The text of an answer as it comes; each piece is one of the engine's."""
        pieces = TextPieces(decode=self.codec.decode, stops=answer.asked.stops)
        while not answer.end:
            text = pieces.feed(await self._next(answer))
            if answer.end and not pieces.is_stopped:
                text += pieces.finish()
            if pieces.is_stopped:
                answer.end = "stop"
            if text:
                yield text

    async def _stream(
        self,
        request: web.Request,
        body: Mapping[str, Any],
        answer: _Answer,
        head: dict[str, Any],
        kind: str,
    ) -> web.StreamResponse:
        texts = self._texts(answer)
        first = await anext(texts, None)  # what cannot be computed is refused, not broken off
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        if kind == CHAT:
            head["object"] = "chat.completion.chunk"
            await response.write(_event(head, {"delta": {"role": "assistant", "content": ""}}))
        try:
            while first is not None:
                said = {"delta": {"content": first}} if kind == CHAT else {"text": first}
                await response.write(_event({**head, **answer.count()}, said))
                first = await anext(texts, None)
        except EngineFailed as error:
            told = json.dumps(problem(500, str(error)))
            await response.write(b"data: %s\n\n" % told.encode())
            return response
        last: dict[str, Any] = {"delta": {}} if kind == CHAT else {"text": ""}
        await response.write(_event({**head, **answer.count()}, last, end=answer.end))
        if (body.get("stream_options") or {}).get("include_usage"):
            usage = {**head, "choices": [], "usage": answer.usage}
            await response.write(b"data: %s\n\n" % json.dumps(usage).encode())
        await response.write(b"data: [DONE]\n\n")
        return response


def _event(head: Mapping[str, Any], said: Mapping[str, Any], end: str | None = None) -> bytes:
    choice = {"index": 0, "finish_reason": end, "logprobs": None, **said}
    return b"data: %s\n\n" % json.dumps({**head, "choices": [choice]}).encode()
