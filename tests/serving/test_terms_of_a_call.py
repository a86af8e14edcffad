"""Deadlines, costs, fallbacks, classes, hedging and addresses, through a gateway that listens."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from aiohttp import web

from karez.core.identity import CallClass, CallLimits
from karez.core.prices import MICRO, Price
from karez.core.routing import Route, Table
from karez.serving import attempts
from karez.serving.access_log import AccessLog
from karez.serving.gateway import Gateway
from tests.serving.callers import RunApp, address, recorded, table, until

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


async def test_an_answer_that_is_late_ends_with_its_deadline(
    gateway: Gateway, run_app: RunApp
) -> None:
    engine = Engine()
    gateway.table = routes(urls=(await run_app(engine.answer),))
    late = await post(gateway, {"x-karez-timeout-ms": "60"})
    assert late.status_code == 504
    assert late.json()["error"]["type"] == "timeout_error"
    await until(lambda: engine.running == 0)  # the replica is free again
    assert [call.status for call in recorded(gateway)] == [504]
    assert gateway.inflight == 0


async def test_what_cannot_be_in_time_is_refused_before_it_is_sent(
    gateway: Gateway, run_app: RunApp
) -> None:
    engine = ready()
    gateway.table = routes(urls=(await run_app(engine.answer),))
    await post(gateway)
    queue = gateway.admission.queues["p", "chat"]
    for _ in range(40):  # what the clock of this test does not tell: 0.5 s for each token
        queue.saw(10.0, size=100, prompt_tokens=10, answer_tokens=20)
    refused = await post(gateway, {"x-karez-timeout-ms": "4000"})
    assert refused.status_code == 504
    assert "would take about" in refused.json()["error"]["message"]
    short = await post(gateway, {"x-karez-timeout-ms": "4000"}, max_tokens=2)
    assert short.status_code == 200
    assert len(engine.asked) == 2


async def test_an_answer_costs_no_more_than_it_may(gateway: Gateway, run_app: RunApp) -> None:
    engine = ready()
    price = Price(prompt=MICRO, completion=10 * MICRO)  # a millionth and ten for each token
    gateway.table = routes(urls=(await run_app(engine.answer),), price=price)
    cap = {"x-karez-max-cost": "0.001"}
    assert (await post(gateway, cap)).status_code == 200
    limit = engine.asked[-1]["max_tokens"]
    assert 95 <= limit < 100
    assert (await post(gateway, cap, max_tokens=50)).status_code == 200
    assert engine.asked[-1]["max_tokens"] == 50
    for body in ({"max_tokens": 200}, {"max_tokens": 50, "n": 4}, {"metadata": "x" * 6000}):
        refused = await post(gateway, cap, **body)
        assert refused.status_code == 402
        assert refused.json()["error"]["type"] == "cost_limit_error"
    assert len(engine.asked) == 2
    assert (await post(gateway, {"x-karez-max-cost": "much"})).status_code == 400


@pytest.mark.parametrize("trouble", ["full", "none ready", "error", "cost"])
async def test_another_model_answers_what_one_cannot(
    gateway: Gateway, run_app: RunApp, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "FALLBACK_S", 0.1)
    broken, small = ready(status=500), ready()
    url = await run_app(broken.answer)
    headers: dict[str, str] = {}
    main = route("chat", url, fallbacks=("gone", "small"))
    if trouble == "none ready":
        main = replace(main, urls=())
    if trouble == "cost":
        main = replace(main, price=Price(prompt=1000 * MICRO, completion=1000 * MICRO))
        headers = {"x-karez-max-cost": "0.0001"}
    gateway.table = replace(table(), routes=(main, route("small", await run_app(small.answer))))
    if trouble == "full":
        queue = gateway.admission._queue(main)
        queue._totals[CallClass.ONLINE] = 1000
    answer = await post(gateway, headers)
    assert (answer.status_code, answer.headers["x-karez-model"]) == (200, "small")
    assert answer.json()["model"] == "small"
    calls = recorded(gateway)
    assert [(call.service, call.status, call.completion_tokens) for call in calls] == [
        ("small", 200, 5)
    ]
    assert len(broken.asked) == (trouble == "error")
    if trouble == "error":  # a request may name others, or none
        assert (await post(gateway, models=["gone"])).status_code == 500
        assert (await post(gateway, models=["small"])).status_code == 200


async def test_the_limits_of_a_key_count_a_request_once_whoever_answers(
    gateway: Gateway, run_app: RunApp
) -> None:
    broken, small = ready(status=500), ready()
    main = route("chat", await run_app(broken.answer), fallbacks=("small",))
    made = table()
    keys = [replace(key, calls=CallLimits(requests_per_minute=2)) for key in made.keys]
    gateway.table = Table(
        keys=tuple(keys), routes=(main, route("small", await run_app(small.answer)))
    )
    statuses = [(await post(gateway)).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]


async def test_online_requests_go_before_others_and_offline_ones_leave_room(
    gateway: Gateway, run_app: RunApp
) -> None:
    engine = Engine()
    gateway.table = routes(urls=(await run_app(engine.answer),), parallel=4)

    def ask(text: str, number: int) -> asyncio.Task[httpx.Response]:
        headers = {"x-karez-priority": text}
        return asyncio.create_task(post(gateway, headers, user=f"{text} {number}"))

    offline = [ask("offline", number) for number in range(5)]
    await until(lambda: len(gateway.relays) == 5)
    near = [ask("near-line", number) for number in range(3)]
    await until(lambda: len(gateway.relays) == 8)
    await until(lambda: len(engine.asked) == 4)
    online = [ask("online", number) for number in range(3)]
    await until(lambda: len(engine.asked) == 5)
    asked = [request["user"].split()[0] for request in engine.asked]
    assert asked == ["offline"] * 3 + ["near-line", "online"]
    engine.is_open.set()
    answers = await asyncio.gather(*offline, *near, *online)
    assert {answer.status_code for answer in answers} == {200}
    asked = [request["user"].split()[0] for request in engine.asked]
    assert asked[5:7] == ["online", "online"]
    assert asked[-2:] == ["offline", "offline"]
    assert "x-karez-queued-ms" in answers[4].headers
    assert "x-karez-queued-ms" not in answers[0].headers


async def test_requests_that_wait_end_with_their_service_their_key_and_their_caller(
    gateway: Gateway, run_app: RunApp
) -> None:
    gateway.table = routes(urls=())
    offline = {"x-karez-priority": "offline"}
    waiting = [asyncio.create_task(post(gateway, offline)) for _ in range(2)]
    waiting += [asyncio.create_task(post(gateway, offline, key="root"))]
    await until(lambda: len(gateway.relays) == 3)
    assert gateway.admission.load()[0].inflight == 3  # so that a replica is started
    waiting[0].cancel()
    await until(lambda: len(gateway.relays) == 2)
    keys = tuple(key for key in gateway.table.keys if key.id != "root")
    gateway.table = replace(gateway.table, keys=keys)
    assert (await waiting[2]).status_code == 401
    gateway.table = replace(gateway.table, routes=())
    assert (await waiting[1]).status_code == 404
    assert not gateway.relays


async def test_the_first_of_two_replicas_to_answer_is_listened_to(
    gateway: Gateway, run_app: RunApp
) -> None:
    slow, quick = Engine(), ready()
    urls = (await run_app(slow.answer), await run_app(quick.answer))
    gateway.table = routes(urls=urls, hedge_s=0.05)
    gateway.pool(urls[1]).inflight += 1  # so that the other one is asked first
    assert (await post(gateway)).status_code == 200
    gateway.pool(urls[1]).inflight -= 1
    await until(lambda: slow.running == 0)  # it computes no further
    assert gateway.counts.hedges_won == 1
    assert gateway.inflight == 0
    assert [call.completion_tokens for call in recorded(gateway)][-1] == 5
    assert {pool.failed for pool in map(gateway.pool, urls)} == {0}


async def test_no_second_replica_is_asked_where_none_is_free_and_its_loss_is_nothing(
    gateway: Gateway, run_app: RunApp
) -> None:
    first, loop = Engine(), asyncio.get_running_loop()
    urls = (await run_app(first.answer), "http://127.0.0.1:1")
    gateway.table = routes(urls=urls, hedge_s=0.02)
    gateway.pool(urls[1]).inflight = 4  # as many as it answers
    asking = asyncio.create_task(post(gateway))
    await until(lambda: first.running == 1)
    sent_at = loop.time()
    await until(lambda: loop.time() > sent_at + 0.1)
    assert gateway.counts.hedges == 0
    gateway.pool(urls[1]).inflight = 2
    again = asyncio.create_task(post(gateway))
    await until(lambda: gateway.counts.hedges == 1)
    await until(lambda: gateway.pool(urls[1]).inflight == 2)  # nobody listens there
    first.is_open.set()
    assert [(await one).status_code for one in (asking, again)] == [200, 200]
    assert gateway.counts.hedges_won == 0
    assert gateway.inflight == 2


async def test_a_replica_that_dies_leaves_its_request_to_the_second(
    gateway: Gateway, run_app: RunApp
) -> None:
    second = Engine()
    dying = asyncio.Event()

    async def die(request: web.Request) -> web.StreamResponse:
        await dying.wait()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    urls = (await run_app(die), await run_app(second.answer))
    gateway.table = routes(urls=urls, hedge_s=0.02)
    gateway.pool(urls[1]).inflight = 1  # so that the other one is asked first
    asking = asyncio.create_task(post(gateway))
    await until(lambda: second.running == 1)
    gateway.pool(urls[1]).inflight -= 1
    dying.set()
    await until(lambda: gateway.pool(urls[0]).failed == 1)
    second.is_open.set()
    assert (await asking).status_code == 200
    assert len(second.asked) == 1
    assert gateway.inflight == 0


async def test_a_key_is_for_calls_from_its_addresses(
    gateway: Gateway, run_app: RunApp, tmp_path: Path
) -> None:
    engine = ready()
    made = routes(urls=(await run_app(engine.answer),))

    def bound(*ranges: str) -> Table:
        keys = [replace(key, calls=CallLimits(addresses=ranges)) for key in made.keys]
        return replace(made, keys=tuple(keys))

    gateway.table = bound("10.0.0.0/8", "::1/128")
    refused = await post(gateway)
    assert refused.status_code == 403
    assert "not from 127.0.0.1" in refused.json()["error"]["message"]
    forged = {"x-forwarded-for": "10.1.1.1"}
    assert (await post(gateway, forged)).status_code == 403
    gateway.proxies = ("127.0.0.0/8",)
    assert (await post(gateway, forged)).status_code == 200
    gateway.table = bound("127.0.0.0/8")
    gateway.proxies = ()
    assert (await post(gateway)).status_code == 200
    logged = lines(tmp_path)
    assert [line["status"] for line in logged] == [403, 403, 200, 200]
    assert [line["address"] for line in logged] == [
        "127.0.0.1",
        "127.0.0.1",
        "10.1.1.1",
        "127.0.0.1",
    ]
    assert logged[0]["key_id"] == ""


async def test_the_access_log_has_each_request_and_what_was_asked_only_if_it_is_to(
    gateway: Gateway, run_app: RunApp, tmp_path: Path
) -> None:
    engine = ready()
    url = await run_app(engine.answer)
    gateway.table = routes(urls=(url,))
    said = [{"role": "user", "content": "a secret"}]
    answer = await post(gateway, messages=said)
    await post(gateway, key="none")
    await post(gateway, model="other")
    found = lines(tmp_path)
    assert [line["status"] for line in found] == [200, 401, 404]
    assert found[0]["id"] == answer.headers["x-request-id"]
    told = ("key_id", "service", "path", "replica", "prompt_tokens", "tries", "address")
    assert [found[0][name] for name in told] == [
        *("mine", "chat", "/v1/chat/completions", url, 10, 1, "127.0.0.1")
    ]
    assert "There is no model" in found[2]["message"]
    assert "secret" not in (tmp_path / "access.jsonl").read_text()
    log = gateway.book.access_log
    assert log is not None
    log.has_text = True
    await post(gateway, messages=said)
    assert lines(tmp_path)[-1]["messages"] == said


def test_an_access_log_has_an_end(tmp_path: Path) -> None:
    log = AccessLog(tmp_path / "log", most=200)
    for number in range(100):
        log.add([{"number": number, "filler": "x" * 20}])
    log.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["log", "log.1", "log.2", "log.3", "log.4"]
    assert all(path.stat().st_size <= 200 for path in tmp_path.iterdir())
    assert json.loads((tmp_path / "log").read_text().splitlines()[-1])["number"] == 99
    again = AccessLog(tmp_path / "log", most=200)
    again.add([{"number": 100}])
    again.close()
    assert json.loads((tmp_path / "log").read_text().splitlines()[-1])["number"] == 100


async def test_terms_come_with_the_official_package(gateway: Gateway, run_app: RunApp) -> None:
    engine = Engine()
    gateway.table = routes(urls=(await run_app(engine.answer),))
    client = openai.AsyncOpenAI(base_url=f"{address(gateway)}/v1", api_key="mine", max_retries=0)
    with pytest.raises(openai.InternalServerError, match="not whole within"):
        await client.chat.completions.create(
            model="chat",
            messages=[{"role": "user", "content": "hi"}],
            extra_headers={"x-karez-timeout-ms": "50"},
            service_tier="flex",
        )
    await client.close()
