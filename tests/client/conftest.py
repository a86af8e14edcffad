"""Clients whose time passes at once, and the real API on loopback."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from karez.client.sdk import AsyncClient, Client
from karez.client.steps import Pause, Step

Handler = Callable[[httpx.Request], httpx.Response]


class QuickClient(Client):
    """A Client whose pauses pass at once, on a clock of its own."""

    at = 0.0

    def _perform(self, step: Step) -> object:
        if isinstance(step, Pause):
            self.at += step.seconds
            return self.at
        return super()._perform(step)


class QuickAsyncClient(AsyncClient):
    """An AsyncClient whose pauses pass at once, on a clock of its own."""

    at = 0.0

    async def _perform(self, step: Step) -> object:
        if isinstance(step, Pause):
            self.at += step.seconds
            return self.at
        return await super()._perform(step)


class Asker:
    """Calls a method by name on one kind of client, and returns its value or the stream's items."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.at = 0.0

    def ask(self, handler: Handler, name: str, /, *args: Any, **named: Any) -> Any:
        transport = httpx.MockTransport(handler)
        if self.kind == "sync":
            with QuickClient("http://cloud", "k", transport=transport) as client:
                return self._now(client, name, args, named)
        return asyncio.run(self._later(transport, name, args, named))

    def ask_at(self, url: str, key: str, name: str, /, *args: Any, **named: Any) -> Any:
        """Call a method over the network."""
        if self.kind == "sync":
            with Client(url, key) as client:
                value = getattr(client, name)(*args, **named)
                return list(value) if name == "follow_logs" else value

        async def later() -> Any:
            async with AsyncClient(url, key) as client:
                if name == "follow_logs":
                    return [item async for item in client.follow_logs(*args, **named)]
                return await getattr(client, name)(*args, **named)

        return asyncio.run(later())

    def _now(self, client: QuickClient, name: str, args: Any, named: Any) -> Any:
        try:
            value = getattr(client, name)(*args, **named)
            return list(value) if name == "follow_logs" else value
        finally:
            self.at = client.at

    async def _later(self, transport: Any, name: str, args: Any, named: Any) -> Any:
        async with QuickAsyncClient("http://cloud", "k", transport=transport) as client:
            try:
                if name == "follow_logs":
                    return [item async for item in client.follow_logs(*args, **named)]
                return await getattr(client, name)(*args, **named)
            finally:
                self.at = client.at


@pytest.fixture(params=["sync", "async"])
def asker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Asker:
    """Run each test that uses this fixture on both clients, without a local cloud."""
    monkeypatch.setenv("KAREZ_HOME", str(tmp_path / "nobody"))
    return Asker(request.param)
