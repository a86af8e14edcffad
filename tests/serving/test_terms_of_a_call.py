"""Deadlines, costs, fallbacks, classes, hedging and addresses, through a gateway that listens."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from aiohttp import web

from karez.core.call_limits import CallClass, CallLimits, MinuteLimits
from karez.core.prices import MICRO, Price
from karez.core.routing import Table
from karez.serving import attempts
from karez.serving.gateway import Gateway
from karez.serving.replica_pool import ReplicaPool
from tests.serving.callers import RunApp, address, recorded, table, until
from tests.serving.talking_engine import STORY, TalkingEngine
from tests.serving.waiting_engine import Engine, lines, post, ready, route, routes


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


async def test_a_model_has_limits_for_all_its_callers(gateway: Gateway, run_app: RunApp) -> None:
    engine = ready()
    calls = MinuteLimits(requests_per_minute=2)
    gateway.table = routes(urls=(await run_app(engine.answer),), calls=calls)
    answers = [await post(gateway, key=key) for key in ("mine", "root", "mine")]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "'chat' is reached: 2 requests/min" in answers[2].json()["error"]["message"]
    assert answers[0].headers["x-ratelimit-remaining-requests"] == "1"


async def test_a_call_that_goes_to_another_model_counts_against_that_ones_limit(
    gateway: Gateway, run_app: RunApp
) -> None:
    broken, small = ready(status=500), ready()
    limited = MinuteLimits(tokens_per_minute=200, requests_per_minute=2)
    main = route("chat", await run_app(broken.answer), fallbacks=("small",), calls=limited)
    other = route("small", await run_app(small.answer), calls=limited)
    gateway.table = replace(table(), routes=(main, other))
    answers = [await post(gateway, max_tokens=100) for _ in range(2)]
    assert [one.headers["x-karez-model"] for one in answers] == ["small", "small"]
    now, meters = gateway.clock.now(), gateway.admission.limiter._meters
    used = {name[2]: (one.tokens.used(now), one.reserved) for name, one in meters.items()}
    assert used == {"chat": (0, 0), "small": (30, 0)}  # who answers, takes
    last = await post(gateway, max_tokens=100)  # neither may be asked again in this minute
    assert (last.status_code, len(broken.asked), len(small.asked)) == (429, 2, 2)
    assert "limit of 'chat' is reached" in last.json()["error"]["message"]


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


async def stream(gateway: Gateway, **headers: str) -> str:
    """The text of a stream, or its error."""
    client = openai.AsyncOpenAI(base_url=f"{address(gateway)}/v1", api_key="mine", max_retries=0)
    try:
        events = await client.chat.completions.create(
            model="chat",
            messages=[{"role": "user", "content": "Tell: "}],
            stream=True,
            extra_headers=headers,
        )
        choices = [event.choices[0] async for event in events if event.choices]
        return "".join(one.delta.content or "" for one in choices)
    finally:
        await client.close()


@pytest.mark.parametrize("is_lost", [True, False])
async def test_a_replica_that_is_slow_to_connect_is_heard_no_more(
    gateway: Gateway, run_app: RunApp, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    """Its connection comes, or fails, in the middle of the answer of the other one."""
    connected, in_middle = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        in_middle.set()
        await connected.wait()

    slow, quick = TalkingEngine(), TalkingEngine(before_end=wait)
    urls = (await run_app(slow.answer), await run_app(quick.answer))
    gateway.table = routes(urls=urls)
    pool, connect = gateway.pool(urls[0]), ReplicaPool._connect
    gateway.pool(urls[1]).inflight = 1  # so that the slow one is asked first

    async def late(self: ReplicaPool, data: bytes, listener: Any) -> None:
        if self is pool:
            await in_middle.wait()
            if is_lost:
                listener.lost("no route", is_stale=False)
                connected.set()
                return
        await connect(self, data, listener)
        if self is pool:
            connected.set()

    monkeypatch.setattr(ReplicaPool, "_connect", late)
    assert await stream(gateway, **{"x-karez-hedge-ms": "20"}) == STORY + " "
    assert not slow.asked
    assert gateway.inflight == 1
    assert [call.status for call in recorded(gateway)] == [200]
    assert (pool.failed, gateway.counts.takeovers) == (0, 0)


async def test_a_fallback_whose_turn_does_not_come_ends_with_its_service(
    gateway: Gateway, run_app: RunApp
) -> None:
    broken, small = ready(status=500), ready()
    main = route("chat", await run_app(broken.answer), fallbacks=("small",))
    gateway.table = replace(table(), routes=(main, route("small")))
    near = {"x-karez-priority": "near-line"}
    gone, served = (asyncio.create_task(post(gateway, near)) for _ in range(2))
    await until(lambda: gateway.counts.fallbacks == 2)
    gone.cancel()
    await until(lambda: len(gateway.relays) == 1)
    url = await run_app(small.answer)
    gateway.table = replace(table(), routes=(main, route("small", url)))
    assert (await served).headers["x-karez-model"] == "small"
    gateway.table = replace(table(), routes=(main, route("small")))
    last = asyncio.create_task(post(gateway, near))
    await until(lambda: gateway.counts.fallbacks == 3)
    gateway.table = replace(table(), routes=(main,))
    assert (await last).status_code == 404


async def test_an_answer_that_was_too_late_is_charged_and_learnt_from(
    gateway: Gateway, run_app: RunApp
) -> None:
    engine = Engine()
    gateway.table = routes(urls=(await run_app(engine.answer),))
    late = await post(gateway, {"x-karez-timeout-ms": "50"}, user="x" * 4000)
    assert late.status_code == 504
    assert recorded(gateway)[0].prompt_tokens > 1000
    assert gateway.admission.queues["p", "chat"].expected_s(CallClass.ONLINE, None) is not None

    async def slow(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n')
        await asyncio.Event().wait()
        return answer

    gateway.table = routes(urls=(await run_app(slow),))
    with pytest.raises(openai.APIError, match="not whole within") as caught:
        await stream(gateway, **{"x-karez-timeout-ms": "100"})
    assert caught.value.type == "timeout_error"
    assert [call.status for call in recorded(gateway)][-1] == 504
    assert gateway.counts.broken == 0
