"""Streams whose replica is lost: another goes on, and the caller sees one stream."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from karez.serving import attempts
from karez.serving.gateway import Gateway
from karez.serving.stream_log import EventReader
from tests.serving.callers import RunApp, address, recorded, table, until
from tests.serving.talking_engine import STORY, TalkingEngine, tokens_of

TOKENS = len(tokens_of(STORY))
Serve = Callable[[TalkingEngine], Coroutine[Any, Any, str]]


@pytest.fixture
def start(run_app: RunApp) -> Serve:
    """Starts engines; returns their URLs."""

    async def run(engine: TalkingEngine) -> str:
        return await run_app(engine.answer)

    return run


async def stream(gateway: Gateway, **body: Any) -> list[Any]:
    """Ask for a stream of the story; returns its events."""
    path = "/v1/completions" if "prompt" in body else "/v1/chat/completions"
    if "prompt" not in body:
        body = {"messages": [{"role": "user", "content": "Tell!"}], **body}
    url = address(gateway) + path
    headers = {"authorization": "Bearer mine"}
    asked = {"model": "chat", "stream": True, **body}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=asked, headers=headers) as answer,
    ):
        assert answer.status == 200
        lines = (await answer.read()).decode().split("\n\n")
    events = [line.removeprefix("data: ") for line in lines if line]
    return [one if one == "[DONE]" else json.loads(one) for one in events]


def text_of(events: list[Any]) -> str:
    choices = [
        event["choices"][0] for event in events if event != "[DONE]" and event.get("choices")
    ]
    return "".join(
        (one["delta"].get("content") if "delta" in one else one["text"]) or "" for one in choices
    )


@pytest.mark.parametrize("body", [{}, {"prompt": "Tell: "}], ids=["chat", "text"])
@pytest.mark.parametrize("before_death", [b"", b"data: {", b"data: {}\n"])
async def test_a_stream_survives_the_loss_of_its_replica_at_each_token(
    gateway: Gateway, start: Serve, body: dict[str, Any], before_death: bytes
) -> None:
    whole = TalkingEngine()
    good = await start(whole)
    gateway.table = table(good)
    options = {"stream_options": {"include_usage": True}}
    undisturbed = await stream(gateway, **body, **options)
    assert text_of(undisturbed) == "".join(tokens_of(STORY))
    dying = TalkingEngine(before_death=before_death)
    bad = await start(dying)
    for dies_after in range(-1, TOKENS + 3):
        dying.dies_after = dies_after
        gateway.table = table(bad)
        dying.on_death = lambda: setattr(gateway, "table", table(good))
        events = await stream(gateway, **body, **options)
        assert text_of(events) == text_of(undisturbed), dies_after
        assert events[-1] == "[DONE]"
        parts = events[:-1]
        assert len({(part["id"], part["created"]) for part in parts}) == 1, dies_after
        assert sum("role" in str(part) for part in parts) == ("prompt" not in body)
        if dies_after < TOKENS:  # later the replica had told that it was at the end
            assert parts[-1]["usage"] == undisturbed[-2]["usage"], dies_after
        gateway.table = table(good)
        await until(lambda: not gateway.relays)
        call = recorded(gateway)[-1]
        gateway.book.spool.done()
        assert (call.status, call.completion_tokens) == (200, TOKENS)
    assert gateway.counts.takeovers >= TOKENS
    assert gateway.counts.broken == 0


async def test_the_limit_of_tokens_holds_over_both_replicas(gateway: Gateway, start: Serve) -> None:
    dying = TalkingEngine()
    good, bad = await start(TalkingEngine()), await start(dying)
    dying.on_death = lambda: setattr(gateway, "table", table(good))
    for most in (1, 4, 7):
        for dies_after in range(most + 2):
            dying.dies_after, gateway.table = dies_after, table(bad)
            events = await stream(gateway, max_tokens=most)
            assert text_of(events) == "".join(tokens_of(STORY)[:most])
            assert events[-2]["choices"][0]["finish_reason"] == "length"


async def test_a_stream_waits_until_a_replica_is_ready(gateway: Gateway, start: Serve) -> None:
    dying = TalkingEngine(dies_after=3)
    bad, good = await start(dying), await start(TalkingEngine())
    gateway.table = table(bad)

    def die() -> None:
        gateway.table = table()
        gateway.loop.call_later(0.4, lambda: setattr(gateway, "table", table(good)))

    dying.on_death = die
    assert text_of(await stream(gateway)) == "".join(tokens_of(STORY))


async def test_a_stream_survives_several_losses(gateway: Gateway, start: Serve) -> None:
    engines = [TalkingEngine(dies_after=3) for _ in range(4)]
    urls = [await start(engine) for engine in engines]
    for engine, following in zip(engines, urls[1:], strict=False):
        engine.on_death = partial(setattr, gateway, "table", table(following))
    engines[-1].dies_after = 10**6
    gateway.table = table(urls[0])
    events = await stream(gateway, stream_options={"include_usage": True})
    assert text_of(events) == "".join(tokens_of(STORY))
    assert events[-2]["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": TOKENS,
        "total_tokens": 7 + TOKENS,
    }


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function"}]},
        {"response_format": {"type": "json_object"}},
        {"n": 2},
        {"logprobs": True},
    ],
)
async def test_what_no_other_replica_can_go_on_with_ends_with_an_error(
    gateway: Gateway, start: Serve, more: dict[str, Any]
) -> None:
    gateway.table = table(await start(TalkingEngine(dies_after=3)))
    events = await stream(gateway, **more)
    assert "no other can go on" in events[-1]["error"]["message"]
    assert recorded(gateway)[-1].status == 502
    assert gateway.counts.broken == 1


async def test_a_stream_that_finds_no_replica_in_time_ends_with_an_error(
    gateway: Gateway, start: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "TAKEOVER_S", 0.3)
    dying = TalkingEngine(dies_after=3)
    gateway.table = table(await start(dying))
    dying.on_death = lambda: setattr(gateway, "table", table("http://127.0.0.1:1"))
    events = await stream(gateway)
    assert "no replica could go on" in events[-1]["error"]["message"]
    (call,) = recorded(gateway)
    assert (call.status, call.completion_tokens) == (502, 3)
    assert gateway.inflight == 0


async def test_an_error_of_the_engine_is_passed_on_and_not_asked_for_again(
    gateway: Gateway, run_app: RunApp
) -> None:
    asked = 0

    async def fail(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(b'data: {"choices": [{"delta": {"content": "so"}}]}\n\n')
        await answer.write(b'data: {"error": {"code": 500, "message": "out of memory"}}\n\n')
        return answer

    gateway.table = table(await run_app(fail))
    events = await stream(gateway)
    assert events[-1]["error"]["message"] == "out of memory"
    assert asked == 1


@pytest.mark.parametrize(
    "said", [b"", b'data: {"choices": 5}\n\n', b'data: {"choices": {"a": 1}}\n\n']
)
async def test_a_stream_that_replicas_die_of_is_given_up(
    gateway: Gateway, run_app: RunApp, said: bytes
) -> None:
    asked = 0

    async def die(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(said)
        assert request.transport is not None
        request.transport.abort()
        return answer

    gateway.table = table(await run_app(die))
    events = await stream(gateway)
    assert "error" in events[-1]
    assert asked <= attempts.TRIES
    assert gateway.inflight == 0


async def test_who_leaves_before_usage_is_told_pays_for_the_prompt(
    gateway: Gateway, start: Serve
) -> None:
    gateway.table = table(await start(TalkingEngine(before_end=lambda: asyncio.sleep(30))))
    prompt = "water " * 400
    request = {"model": "chat", "stream": True, "prompt": f"{prompt} Tell: "}
    headers = {"authorization": "Bearer mine"}
    async with aiohttp.ClientSession() as session:
        url = address(gateway) + "/v1/completions"
        async with session.post(url, json=request, headers=headers) as answer:
            async for line in answer.content:
                if b'"finish_reason"' in line:
                    break
            answer.close()
    await until(lambda: not gateway.relays)
    (call,) = recorded(gateway)
    assert call.prompt_tokens >= len(prompt) / 4
    assert call.completion_tokens == TOKENS


def test_pieces_of_events_are_put_together_wherever_they_are_cut() -> None:
    whole = b'data: {"a": 1}\n\n: ping\n\ndata: [DONE]\n\n'
    for size in range(1, 9):
        reader = EventReader()
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        assert b"".join(event for piece in pieces for event in reader.feed(piece)) == whole
        assert len([e for piece in pieces for e in EventReader().feed(whole)]) == 3 * len(pieces)
