"""What tests of the gateway call and are called by."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
from aiohttp import web

from karez.core.identity import EVERYWHERE, Role
from karez.core.routing import GatewayKey, Route, Table
from karez.core.usage import Call
from karez.serving.gateway import Gateway

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RunApp = Callable[[Handler], Awaitable[str]]
ADDRESSES: dict[int, tuple[str, int]] = {}
"""Gateway -> where it listens."""


async def serve(runner: web.AppRunner) -> str:
    """Start a server on a free port; returns its address."""
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    return f"http://127.0.0.1:{port}"


def table(*urls: str, parallel: int = 4) -> Table:
    keys = (
        GatewayKey(id="mine", project="p", role=Role.MEMBER, digest=""),
        GatewayKey(id="foreign", project="q", role=Role.MEMBER, digest=""),
        GatewayKey(id="root", project=EVERYWHERE, role=Role.ADMIN, digest=""),
    )
    return Table(
        keys=keys, routes=(Route(service="chat", project="p", urls=urls, parallel=parallel),)
    )


def address(gateway: Gateway) -> str:
    host, port = ADDRESSES[id(gateway)]
    return f"http://{host}:{port}"


async def ask(gateway: Gateway, key: str, **body: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=address(gateway), trust_env=False) as client:
        headers = {"authorization": f"Bearer {key}"}
        return await client.post("/v1/chat/completions", json=body, headers=headers)


def recorded(gateway: Gateway) -> Sequence[Call]:
    """The calls that are not delivered yet."""
    return gateway.book.spool.take() if gateway.book.spool.rotate() else ()


async def until(is_so: Callable[[], Any]) -> None:
    deadline = asyncio.get_running_loop().time() + 5
    for pause_s in itertools.repeat(0.005):
        if is_so():
            return
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(pause_s)
