"""A pretended engine that answers when it is told to, and requests with terms."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web

from karez.core.routing import Route, Table
from karez.serving.gateway import Gateway
from tests.serving.callers import address, table

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Engine:
    """Answers when it is told to, and remembers what it was asked."""

    status: int = 200
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[dict[str, Any]] = field(default_factory=list)
    running: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        self.running += 1
        try:
            await self.is_open.wait()
        finally:
            self.running -= 1
        body = {"choices": [], "model": self.asked[-1]["model"], "usage": USAGE}
        return web.json_response(body, status=self.status)


def ready(**fields: Any) -> Engine:
    engine = Engine(**fields)
    engine.is_open.set()
    return engine


async def post(
    gateway: Gateway, headers: dict[str, str] | None = None, key: str = "mine", **body: Any
) -> httpx.Response:
    async with httpx.AsyncClient(base_url=address(gateway), trust_env=False) as client:
        sent = {"authorization": f"Bearer {key}", **(headers or {})}
        body = {"model": "chat", "messages": [], **body}
        return await client.post("/v1/chat/completions", json=body, headers=sent)


def routes(*added: Route, **fields: Any) -> Table:
    """A table with a route `chat` of these fields, and others."""
    made = table(**{name: fields.pop(name) for name in ("parallel",) if name in fields})
    (chat,) = made.routes
    return replace(made, routes=(replace(chat, **fields), *added))


def route(service: str, *urls: str, **fields: Any) -> Route:
    return Route(service=service, project="p", urls=urls, **fields)


def lines(tmp_path: Path) -> list[dict[str, Any]]:
    """What the access log has."""
    return [json.loads(line) for line in (tmp_path / "access.jsonl").read_text().splitlines()]
