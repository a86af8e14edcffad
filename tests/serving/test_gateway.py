"""The gateway before a pretended engine: keys, routing, streaming, usage, what is refused."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from karez.core.call_limits import CallLimits
from karez.core.codec import to_text
from karez.core.usage import Call
from karez.serving import attempts, usage_spool
from karez.serving.gateway import Gateway
from karez.serving.usage_spool import UsageSpool
from tests.fakes import FakeClock
from tests.serving.callers import ADDRESSES, RunApp, ask, recorded, table, until

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


@pytest.fixture
async def engine(run_app: RunApp) -> str:
    return await run_app(_engine)


async def test_an_answer_is_passed_on_and_its_tokens_are_counted(
    gateway: Gateway, engine: str
) -> None:
    gateway.table = table(engine)
    answer = await ask(gateway, "mine", model="chat", messages=[])
    assert answer.json()["choices"] == [{"text": "hi"}]
    (call,) = recorded(gateway)
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
    assert [call.completion_tokens for call in recorded(gateway)] == [2, 2]


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
    assert not recorded(gateway)


async def test_a_dead_replica_is_passed_over(
    gateway: Gateway, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.table = table("http://127.0.0.1:1", engine)
    for _ in range(3):
        assert (await ask(gateway, "root", model="chat", messages=[])).status_code == 200
    monkeypatch.setattr(attempts, "HOLD_S", 0.1)
    for urls in (("http://127.0.0.1:1",), ()):
        gateway.table = table(*urls)
        refused = await ask(gateway, "root", model="chat", messages=[])
        assert refused.status_code == 502
        assert "karez services show chat" in refused.json()["error"]["message"]
    assert gateway.inflight == 0


async def test_a_request_is_held_until_a_replica_is_ready(gateway: Gateway, engine: str) -> None:
    for urls in (("http://127.0.0.1:1",), ()):
        gateway.table = table(*urls)
        asked = asyncio.ensure_future(ask(gateway, "mine", model="chat", messages=[]))
        await until(lambda: gateway.relays)
        assert gateway.admission.awaits_a_replica() == (not urls)
        gateway.table = table(engine)
        answer = await asked
        assert answer.status_code == 200
        assert ("x-karez-held-ms" in answer.headers) == (not urls)
        assert not gateway.admission.awaits_a_replica()


async def test_a_service_whose_project_has_no_money_left_says_so(
    gateway: Gateway, engine: str
) -> None:
    (route,) = table(engine).routes
    why = "Project p has spent 10.00 of its 10.00 for this month."
    gateway.table = replace(table(engine), routes=(replace(route, stopped=why),))
    refused = await ask(gateway, "mine", model="chat", messages=[])
    assert (refused.status_code, refused.json()["error"]["message"]) == (429, why)
    assert refused.json()["error"]["type"] == "insufficient_quota"
    assert gateway.load().services[0].admitted == 0
    gateway.table = table(engine)
    assert (await ask(gateway, "mine", model="chat", messages=[])).status_code == 200


async def test_control_is_told_of_each_service_and_replica(
    gateway: Gateway, engine: str, run_app: RunApp
) -> None:
    async def fail(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.json_response({}, status=500)

    gateway.table = table(engine, await run_app(fail))
    (service,) = gateway.load().services
    assert (service.service, service.inflight, service.slots) == ("chat", 0, 8)
    prompts = [[{"content": str(number) * 300}] for number in range(12)]
    await asyncio.gather(
        *(ask(gateway, "mine", model="chat", messages=prompt) for prompt in prompts)
    )
    good, bad = sorted(gateway.load().replicas, key=lambda one: one.failed)
    assert good.url == engine
    assert good.answered + bad.answered == 12
    assert (good.failed, bad.failed) == (0, bad.answered)
    assert bad.answered > 0
    assert (good.inflight, bad.inflight) == (0, 0)
    gateway.table = table()
    assert gateway.load().replicas == ()


async def test_a_request_that_replicas_die_of_is_given_up(
    gateway: Gateway, run_app: RunApp
) -> None:
    asked = 0

    async def die(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        await request.read()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    gateway.table = table(await run_app(die))
    refused = await ask(gateway, "mine", model="chat", messages=[])
    assert (refused.status_code, asked) == (502, attempts.TRIES)
    assert recorded(gateway)[0].status == 502


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
    assert [call.project for call in recorded(gateway)] == ["p", "q", "q"]


async def test_many_at_once(gateway: Gateway, engine: str) -> None:
    (route,) = table(engine).routes
    gateway.table = replace(table(engine), routes=(replace(route, parallel=40),))
    answers = await asyncio.gather(
        *(ask(gateway, "mine", model="chat", messages=[], stream=n % 2 == 0) for n in range(40))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len(recorded(gateway)) == 40


def test_calls_survive_until_they_are_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(ident: str) -> bytes:
        made = Call(
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
        return f"{to_text(made)}\n".encode()

    def taken(spool: UsageSpool) -> list[str]:
        return [one.id for one in spool.take()] if spool.rotate() else []

    spool = UsageSpool(tmp_path / "calls")
    spool.add([call("a")])
    assert taken(spool) == ["a"]
    spool.add([call("b")])  # control did not answer; the gateway died here
    again = UsageSpool(tmp_path / "calls")
    assert taken(again) == ["a"]
    again.done()
    assert taken(again) == ["b"]
    again.done()
    assert taken(again) == []
    many = [call(f"c{number}") for number in range(20)]
    monkeypatch.setattr(usage_spool, "BATCH_BYTES", 3 * len(many[0]))
    again.add([*many, b'{"id": "cut'])
    found = []
    while again.rotate():
        batch = taken(again)
        assert len(batch) <= 4
        found += batch
        again.done()
    assert found == [f"c{number}" for number in range(20)]
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
async def slow(run_app: RunApp) -> tuple[SlowEngine, str]:
    engine = SlowEngine()
    return engine, await run_app(engine.answer)


class Caller:
    """A caller that can hang up."""

    def __init__(self, gateway: Gateway, *, stream: bool) -> None:
        self.received = b""
        body = json.dumps({"model": "chat", "messages": [], "stream": stream}).encode()
        self._request = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer mine\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        self._address = ADDRESSES[id(gateway)]
        self._writer: asyncio.StreamWriter | None = None
        self._task = asyncio.ensure_future(self._call())

    async def _call(self) -> None:
        reader, self._writer = await asyncio.open_connection(*self._address)
        self._writer.write(self._request)
        while piece := await reader.read(1 << 16):
            self.received += piece

    async def hang_up(self) -> None:
        assert self._writer is not None
        self._writer.transport.abort()
        await asyncio.wait({self._task}, timeout=5)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_caller_who_hangs_up_frees_the_model_and_pays_for_what_was_sent(
    gateway: Gateway, slow: tuple[SlowEngine, str], stream: bool
) -> None:
    engine, url = slow
    gateway.table = table(url, parallel=8)
    callers = [Caller(gateway, stream=stream) for _ in range(8)]
    await until(lambda: engine.running == 8)
    if stream:
        await until(lambda: all(caller.received.count(b"word") > 4 for caller in callers))
    for caller in callers:
        await caller.hang_up()
    await until(lambda: engine.running == 0 and not gateway.relays)
    calls = recorded(gateway)
    assert [call.status for call in calls] == [499] * 8
    if stream:
        assert all(call.completion_tokens > 4 for call in calls)
    assert gateway.inflight == 0
    (load,) = gateway.admission.load()
    assert (load.inflight, load.slots) == (0, 8)


async def test_a_queue_has_an_end_and_says_when_to_come_again(
    gateway: Gateway, slow: tuple[SlowEngine, str], engine: str
) -> None:
    _, url = slow
    gateway.table = table(url)
    callers = [Caller(gateway, stream=True) for _ in range(36)]
    await until(lambda: gateway.admission.load() and gateway.admission.load()[0].inflight == 36)
    refused = await ask(gateway, "mine", model="chat", messages=[])
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert "4 requests at once, and 32 wait" in refused.json()["error"]["message"]
    assert gateway.admission.load()[0].refused == 1
    for caller in callers:
        await caller.hang_up()
    gateway.table = table(engine)
    assert (await ask(gateway, "mine", model="chat", messages=[])).status_code == 200


async def test_a_key_has_its_limits_and_its_models(gateway: Gateway, engine: str) -> None:
    def limited(**limits: Any) -> None:
        made = table(engine)
        keys = tuple(replace(key, calls=CallLimits(**limits)) for key in made.keys)
        other = replace(made.routes[0], service="other")
        gateway.table = replace(made, keys=keys, routes=(*made.routes, other))

    limited(requests_per_minute=2)
    answers = [await ask(gateway, "mine", model="chat", messages=[]) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[1].headers["x-ratelimit-remaining-requests"] == "0"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 61
    assert "2 requests/min" in answers[2].json()["error"]["message"]
    assert (await ask(gateway, "root", model="chat", messages=[])).status_code == 200
    limited(requests_per_minute=3)  # what it has used stays
    assert (await ask(gateway, "mine", model="chat", messages=[])).status_code == 200
    assert (await ask(gateway, "mine", model="chat", messages=[])).status_code == 429
    limited(tokens_per_minute=30)
    body = {"model": "chat", "messages": [], "max_tokens": 10}
    told = [await ask(gateway, "mine", **body) for _ in range(4)]
    assert [answer.status_code for answer in told] == [429] * 4, "5 of each call of before"
    assert isinstance(gateway.clock, FakeClock)
    gateway.clock.at += 61
    told = [await ask(gateway, "mine", **body) for _ in range(4)]
    assert [answer.status_code for answer in told] == [200, 200, 429, 429]
    limited(models=("p/other",))
    assert (await ask(gateway, "mine", model="chat", messages=[])).status_code == 404
    assert (await ask(gateway, "mine", model="other", messages=[])).status_code == 200
    assert (await ask(gateway, "foreign", model="other", messages=[])).status_code == 404


async def test_a_key_that_is_revoked_ends_what_it_asked_for(
    gateway: Gateway, slow: tuple[SlowEngine, str]
) -> None:
    engine, url = slow
    gateway.table = table(url)
    streaming, waiting = Caller(gateway, stream=True), Caller(gateway, stream=False)
    await until(lambda: engine.running == 2 and b"word" in streaming.received)
    keys = tuple(key for key in gateway.table.keys if key.id != "mine")
    gateway.table = replace(gateway.table, keys=keys)
    await until(lambda: b"was revoked" in streaming.received)
    await until(lambda: waiting.received.startswith(b"HTTP/1.1 401 "))
    await until(lambda: engine.running == 0)
    assert streaming.received.endswith(b"0\r\n\r\n")
    assert sorted(call.status for call in recorded(gateway)) == [401, 401]
    for caller in (streaming, waiting):
        await caller.hang_up()
