"""A pretended engine that says the same to the same prompt, and can die in the middle of it."""

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

STORY = "Once upon a time, under the desert, a karez ran. \u6c34 was in it \U0001f4a7, and so on."


def tokens_of(text: str) -> list[str]:
    """Words with their spaces."""
    return [word + " " for word in text.split(" ")]


@dataclass
class TalkingEngine:
    """Tells STORY; a prompt that ends within it is gone on with."""

    dies_after: int = 10**6
    """Tokens after which it closes its connection, and each one later, for good."""
    before_death: bytes = b""
    """Written at last: the first bytes of an event."""
    on_death: Callable[[], None] = lambda: None
    before_end: Callable[[], Awaitable[None]] | None = None
    """Awaited once the text is told, before its usage is."""
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Stream the rest of the story."""
        body = await request.json()
        self.asked.append(body)
        is_chat = request.path.endswith("/chat/completions")
        said = self._said(body, is_chat)
        tokens = [token for token in tokens_of(STORY)[len(said) :]][: body.get("max_tokens", 10**6)]
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        assert request.transport is not None
        with suppress(ConnectionError):
            for number, event in enumerate(self._events(tokens, is_chat, body, len(said))):
                if number > self.dies_after:
                    await answer.write(self.before_death)
                    self.on_death()
                    request.transport.abort()
                    return answer
                if self.before_end is not None and b'"usage"' in event:
                    await self.before_end()
                await answer.write(event)
            await answer.write(b"data: [DONE]\n\n")
        return answer

    def _said(self, body: dict[str, Any], is_chat: bool) -> list[str]:
        if not is_chat:
            return tokens_of(body["prompt"].partition("Tell: ")[2])[:-1]
        last = body["messages"][-1]
        return tokens_of(last["content"])[:-1] if last["role"] == "assistant" else []

    def _events(
        self, tokens: list[str], is_chat: bool, body: dict[str, Any], said: int
    ) -> Iterator[bytes]:
        ident = f"cmpl-{id(self)}-{len(self.asked)}"

        def event(choices: list[Any], **more: Any) -> bytes:
            data = {"id": ident, "created": id(self), "choices": choices, **more}
            return f"data: {json.dumps(data)}\n\n".encode()

        if is_chat:
            yield event([{"index": 0, "delta": {"role": "assistant", "content": None}}])
        for token in tokens:
            yield event(
                [{"index": 0, **({"delta": {"content": token}} if is_chat else {"text": token})}]
            )
        reason = "length" if len(tokens) == body.get("max_tokens") else "stop"
        end: dict[str, Any] = {"delta": {}} if is_chat else {"text": ""}
        yield event([{"index": 0, "finish_reason": reason, **end}])
        if body.get("stream_options", {}).get("include_usage"):
            usage = {"prompt_tokens": 7 + said, "completion_tokens": len(tokens)}
            yield event([], usage={**usage, "total_tokens": 7 + said + len(tokens)})
