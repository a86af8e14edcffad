"""Passes an engine's answer on to the caller, and counts its tokens."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
import orjson

from karez.serving.asgi import Send, send_bytes, start_answer


@dataclass(slots=True, kw_only=True)
class TokenUsage:
    """Tokens of one answer, as the engine reports them."""

    prompt: int = 0
    completion: int = 0
    """Of a stream that has not ended: the pieces that were passed on, each of which is a token."""

    def read(self, usage: object) -> bool:
        """Read a `usage` object; returns whether it is one."""
        if not isinstance(usage, Mapping):
            return False
        self.prompt = int(usage.get("prompt_tokens") or 0)
        self.completion = int(usage.get("completion_tokens") or 0)
        return True


async def relay_answer(
    answer: aiohttp.ClientResponse, send: Send, counts: TokenUsage, wants_usage: bool
) -> None:
    """Pass an answer on, whole or event by event; usage events only to callers who want them."""
    kind = answer.headers.get("content-type", "application/json")
    if not kind.startswith("text/event-stream"):
        data = await answer.read()
        if kind.startswith("application/json"):
            with contextlib.suppress(orjson.JSONDecodeError, AttributeError):  # nothing to count
                counts.read(orjson.loads(data).get("usage"))
        await send_bytes(send, int(answer.status), kind, data)
        return
    first = True
    async for line in answer.content:  # server-sent events: one line each, blank between
        if first:
            await start_answer(send, int(answer.status), kind)
            first = False
        out = _event(line, counts, wants_usage)
        counts.completion += _is_token(line)
        if out:
            await send({"type": "http.response.body", "body": out, "more_body": True})
    if first:
        await start_answer(send, int(answer.status), kind)
    await send({"type": "http.response.body", "body": b""})


def _is_token(line: bytes) -> bool:
    """Whether a line of a stream carries a piece of the answer."""
    has_text = b'"content"' in line or b'"text"' in line
    return has_text and line.startswith(b"data:") and b'"role"' not in line


def _event(line: bytes, counts: TokenUsage, wants_usage: bool) -> bytes:
    """The line to pass on; empty for a usage event that the caller did not request."""
    if b'"usage"' not in line or not line.startswith(b"data:"):
        return line
    try:
        event = orjson.loads(line[5:])
    except orjson.JSONDecodeError:
        return line
    if counts.read(event.get("usage")) and not event.get("choices") and not wants_usage:
        return b""
    return line
