"""ASGI messages of the gateway: read a request's body, send an answer, refuse a request."""

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import orjson

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_LIMIT_BYTES = 32 << 20
"""Largest request. vLLM and llama.cpp take more than any context needs; this stops abuse."""


@dataclass(eq=False)
class Refusal(Exception):
    """A request that the gateway answers itself, with an error in OpenAI's form."""

    status: int
    kind: str
    message: str
    retry_after_s: int = 0
    """When to try again; 0: the answer does not say."""


async def until_gone(receive: Receive) -> None:
    """Wait until the caller has hung up; its body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_body(receive: Receive) -> bytes:
    """Read the whole body of a request. Raises Refusal if the body is too large."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "invalid_request_error", "The caller hung up.")
        part = message.get("body", b"")
        size += len(part)
        if size > BODY_LIMIT_BYTES:
            raise Refusal(
                413, "invalid_request_error", f"The body exceeds {BODY_LIMIT_BYTES} bytes."
            )
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


def problem(refusal: Refusal) -> dict[str, Any]:
    """The JSON body of a refusal, as OpenAI's API has it."""
    error = {
        "message": refusal.message,
        "type": refusal.kind,
        "code": refusal.status,
        "param": None,
    }
    return {"error": error}


async def send_json(send: Send, status: int, body: object, *more: tuple[bytes, bytes]) -> None:
    """Send a JSON answer, with more headers."""
    await send_bytes(send, status, "application/json", orjson.dumps(body), *more)


async def send_text(send: Send, body: bytes) -> None:
    """Send a Prometheus text answer."""
    await send_bytes(send, 200, "text/plain; version=0.0.4", body)


async def send_refusal(send: Send, refusal: Refusal) -> None:
    """Send a refusal."""
    after = (b"retry-after", str(refusal.retry_after_s).encode())
    more = (after,) if refusal.retry_after_s else ()
    await send_json(send, refusal.status, problem(refusal), *more)


async def send_bytes(
    send: Send, status: int, kind: str, data: bytes, *more: tuple[bytes, bytes]
) -> None:
    """Send an answer of a content type."""
    size = str(len(data)).encode()
    await start_answer(send, status, kind, (b"content-length", size), *more)
    await send({"type": "http.response.body", "body": data})


async def start_answer(send: Send, status: int, kind: str, *more: tuple[bytes, bytes]) -> None:
    """Send the status and the headers of an answer."""
    headers = [(b"content-type", kind.encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
