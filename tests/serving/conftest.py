"""A gateway that listens, for the tests of this room."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop
from aiohttp import web

from karez.core.routing import GatewayKey, Table
from karez.serving import gateway as gateway_module
from karez.serving.access_log import AccessLog
from karez.serving.call_book import CallBook
from karez.serving.gateway import Gateway
from karez.serving.usage_spool import UsageSpool
from tests.fakes import FakeClock
from tests.serving.callers import ADDRESSES, Handler, RunApp, serve


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the gateway's process runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    def check(text: str, table: Table) -> GatewayKey | None:
        return next((key for key in table.keys if key.id == text), None)

    monkeypatch.setattr(gateway_module, "SWEEP_S", 0.05)
    made = Gateway(
        book=CallBook(
            spool=UsageSpool(tmp_path / "calls"), access_log=AccessLog(tmp_path / "access.jsonl")
        ),
        clock=FakeClock(),
        find_key=check,
        engine_key="engine-key",
    )
    server = await made.listen("127.0.0.1", 0)
    ADDRESSES[id(made)] = server.sockets[0].getsockname()
    yield made
    server.close()
    await made.close(within_s=1)
    made.book.spool.close()


@pytest.fixture
async def run_app() -> AsyncIterator[RunApp]:
    """Serves applications, each at the URL that it returns."""
    runners: list[web.AppRunner] = []

    async def run(answer: Handler) -> str:
        app = web.Application()
        app.router.add_post("/{path:.*}", answer)
        runners.append(web.AppRunner(app, handler_cancellation=True))
        return await serve(runners[-1])

    yield run
    for runner in runners:
        await runner.cleanup()
