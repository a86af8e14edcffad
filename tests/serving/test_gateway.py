"""The gateway before a pretended engine: keys, routing, streaming, usage, what is refused."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from aiohttp import web

from karez.core.identity import EVERYWHERE, Role
from karez.core.routing import GatewayKey, Route, Table
from karez.core.usage import Call
from karez.serving.gateway import Gateway
from karez.serving.usage_spool import UsageSpool
from tests.fakes import FakeClock

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


async def _engine(request: web.Request) -> web.StreamResponse:
    assert request.headers["authorization"] == "Bearer engine-key"
    body = await request.json()
    if not body.get("stream"):
        return web.json_response(
            {"choices": [{"text": "hi"}], "usage": USAGE, "model": body["model"]}
        )
    answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await answer.prepare(request)
    for text in ("he", "llo"):
        event = {"choices": [{"delta": {"content": text}}]}
        await answer.write(f"data: {json.dumps(event)}\n\n".encode())
    if body["stream_options"]["include_usage"]:
        await answer.write(f"data: {json.dumps({'choices': [], 'usage': USAGE})}\n\n".encode())
    await answer.write(b"data: [DONE]\n\n")
    return answer


async def serve(runner: web.AppRunner) -> str:
    """Start a server on a free port; returns its address."""
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    return f"http://127.0.0.1:{port}"


@pytest.fixture
async def engine() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", _engine)
    runner = web.AppRunner(app)
    yield await serve(runner)
    await runner.cleanup()


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    def check(text: str, table: Table) -> GatewayKey | None:
        return next((key for key in table.keys if key.id == text), None)

    made = Gateway(
        spool=UsageSpool(tmp_path / "calls"),
        clock=FakeClock(),
        check=check,
        engine_key="engine-key",
    )
    made.session = aiohttp.ClientSession()
    yield made
    await made.session.close()
    made.spool.close()


def table(*urls: str) -> Table:
    keys = (
        GatewayKey(id="mine", project="p", role=Role.MEMBER, digest=""),
        GatewayKey(id="foreign", project="q", role=Role.MEMBER, digest=""),
        GatewayKey(id="root", project=EVERYWHERE, role=Role.ADMIN, digest=""),
    )
    return Table(keys=keys, routes=(Route(service="chat", project="p", urls=urls),))


async def ask(gateway: Gateway, key: str, **body: Any) -> httpx.Response:
    transport = httpx.ASGITransport(gateway)
    async with httpx.AsyncClient(transport=transport, base_url="http://g") as client:
        headers = {"authorization": f"Bearer {key}"}
        return await client.post("/v1/chat/completions", json=body, headers=headers)


async def test_an_answer_is_passed_on_and_its_tokens_are_counted(
    gateway: Gateway, engine: str
) -> None:
    gateway.table = table(engine)
    answer = await ask(gateway, "mine", model="chat", messages=[])
    assert answer.json()["choices"] == [{"text": "hi"}]
    (call,) = gateway.spool.take()
    assert (call.project, call.key_id, call.service) == ("p", "mine", "chat")
    assert (call.prompt_tokens, call.completion_tokens, call.status) == (3, 2, 200)


async def test_a_stream_is_counted_without_showing_it(gateway: Gateway, engine: str) -> None:
    gateway.table = table(engine)
    answer = await ask(gateway, "mine", model="chat", messages=[], stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "llo" in answer.text
    assert "[DONE]" in answer.text
    assert "prompt_tokens" not in answer.text
    asked = await ask(
        gateway,
        "mine",
        model="chat",
        messages=[],
        stream=True,
        stream_options={"include_usage": True},
    )
    assert "prompt_tokens" in asked.text
    assert [call.completion_tokens for call in gateway.spool.take()] == [2, 2]


@pytest.mark.parametrize(
    ("key", "body", "status"),
    [
        ("none", {"model": "chat"}, 401),
        ("foreign", {"model": "chat"}, 404),
        ("mine", {"model": "none"}, 404),
        ("mine", {}, 400),
        ("mine", {"model": 3}, 400),
        ("mine", {"model": "chat", "stream_options": 1}, 400),
    ],
)
async def test_what_cannot_be_answered_is_refused_in_openais_form(
    gateway: Gateway, engine: str, key: str, body: dict[str, Any], status: int
) -> None:
    gateway.table = table(engine)
    answer = await ask(gateway, key, **body)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "code", "param"}
    assert not gateway.spool.take()


async def test_a_dead_replica_is_passed_over(gateway: Gateway, engine: str) -> None:
    gateway.table = table("http://127.0.0.1:1", engine)
    for _ in range(3):
        assert (await ask(gateway, "root", model="chat", messages=[])).status_code == 200
    gateway.table = table("http://127.0.0.1:1")
    assert (await ask(gateway, "root", model="chat", messages=[])).status_code == 502
    gateway.table = table()
    assert (await ask(gateway, "root", model="chat", messages=[])).status_code == 503
    assert all(count == 0 for count in gateway.inflight.values())


async def test_models_of_one_name_are_told_apart_by_their_projects(
    gateway: Gateway, engine: str
) -> None:
    (own,) = table(engine).routes
    gateway.table = replace(table(engine), routes=(own, replace(own, project="q", urls=(engine,))))
    for key in ("mine", "foreign"):
        assert (await ask(gateway, key, model="chat", messages=[])).status_code == 200
    several = await ask(gateway, "root", model="chat", messages=[])
    assert (several.status_code, "p/chat, q/chat" in several.text) == (409, True)
    assert (await ask(gateway, "root", model="q/chat", messages=[])).status_code == 200
    assert (await ask(gateway, "mine", model="q/chat", messages=[])).status_code == 404
    assert [call.project for call in gateway.spool.take()] == ["p", "q", "q"]


async def test_many_at_once(gateway: Gateway, engine: str) -> None:
    (route,) = table(engine).routes
    gateway.table = replace(table(engine), routes=(replace(route, parallel=40),))
    answers = await asyncio.gather(
        *(ask(gateway, "mine", model="chat", messages=[], stream=n % 2 == 0) for n in range(40))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len(gateway.spool.take()) == 40


def test_calls_survive_until_they_are_delivered(tmp_path: Path) -> None:
    def call(ident: str) -> Call:
        return Call(
            id=ident,
            at=1.0,
            project="p",
            key_id="k",
            service="s",
            prompt_tokens=1,
            completion_tokens=1,
            status=200,
            duration_s=0.1,
        )

    spool = UsageSpool(tmp_path / "calls")
    spool.add(call("a"))
    assert [c.id for c in spool.take()] == ["a"]
    spool.add(call("b"))  # control did not answer; the gateway died here
    again = UsageSpool(tmp_path / "calls")
    assert [c.id for c in again.take()] == ["a"]
    again.done()
    assert [c.id for c in again.take()] == ["b"]
    again.done()
    assert again.take() == ()
    spool.close()
    again.close()


class SlowEngine:
    """An engine that streams words for ever, and knows how many of its callers are there."""

    def __init__(self) -> None:
        self.running, self.closed = 0, 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.running += 1
        try:
            answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
            if body.get("stream"):
                await answer.prepare(request)
            while True:
                if body.get("stream"):
                    event = {"choices": [{"delta": {"content": "word"}}]}
                    await answer.write(f"data: {json.dumps(event)}\n\n".encode())
                await asyncio.sleep(0.005)
        finally:
            self.running -= 1
            self.closed += 1


@pytest.fixture
async def slow() -> AsyncIterator[tuple[SlowEngine, str]]:
    engine, app = SlowEngine(), web.Application()
    app.router.add_post("/v1/chat/completions", engine.answer)
    runner = web.AppRunner(app, handler_cancellation=True)
    yield engine, await serve(runner)
    await runner.cleanup()


class Caller:
    """A caller that can hang up, as uvicorn tells of it."""

    def __init__(self, gateway: Gateway, *, stream: bool) -> None:
        self.sent: list[Any] = []
        self.gone = asyncio.Event()
        body = json.dumps({"model": "chat", "messages": [], "stream": stream}).encode()
        self._messages: list[dict[str, Any]] = [{"type": "http.request", "body": body}]
        headers = [(b"authorization", b"Bearer mine")]
        path = "/v1/chat/completions"
        scope = {"type": "http", "path": path, "method": "POST", "headers": headers}
        self.task = asyncio.ensure_future(gateway(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        if self._messages:
            return self._messages.pop()
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    async def hang_up(self) -> None:
        self.gone.set()
        await asyncio.wait_for(self.task, 5)


async def until(is_so: Any) -> None:
    deadline = asyncio.get_running_loop().time() + 5
    for pause_s in itertools.repeat(0.005):
        if is_so():
            return
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(pause_s)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_caller_who_hangs_up_frees_the_model_and_pays_for_what_was_sent(
    gateway: Gateway, slow: tuple[SlowEngine, str], stream: bool
) -> None:
    engine, url = slow
    gateway.table = table(url)
    callers = [Caller(gateway, stream=stream) for _ in range(8)]
    await until(lambda: engine.running == 8)
    if stream:
        await until(lambda: all(len(caller.sent) > 4 for caller in callers))
    for caller in callers:
        await caller.hang_up()
    await until(lambda: engine.running == 0)
    calls = gateway.spool.take()
    assert [call.status for call in calls] == [499] * 8
    for call, caller in zip(calls, callers, strict=True):
        words = sum(b"word" in message.get("body", b"") for message in caller.sent)
        assert call.completion_tokens == words
    assert sum(gateway.inflight.values()) == 0
    (load,) = gateway.load()
    assert (load.inflight, load.slots) == (0, 4)


async def test_a_queue_has_an_end_and_says_when_to_come_again(
    gateway: Gateway, slow: tuple[SlowEngine, str], engine: str
) -> None:
    _, url = slow
    gateway.table = table(url)
    callers = [Caller(gateway, stream=True) for _ in range(36)]
    await until(lambda: gateway.load() and gateway.load()[0].inflight == 36)
    refused = await ask(gateway, "mine", model="chat", messages=[])
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert "4 requests at once, and 32 wait" in refused.json()["error"]["message"]
    assert gateway.load()[0].refused == 1
    for caller in callers:
        await caller.hang_up()
    gateway.table = table(engine)
    assert (await ask(gateway, "mine", model="chat", messages=[])).status_code == 200
