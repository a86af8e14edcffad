"""Guardrails on answers and requests of any form: nothing passes because it is not known."""

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
from aiohttp import web

from karez.core.call_limits import CallLimits
from karez.core.engines import Task
from karez.core.guardrails import Guardrail, Side
from karez.serving.gateway import Gateway
from karez.serving.guarded_stream import GuardedStream
from karez.serving.guards import Guard
from karez.serving.stream_log import CHAT
from tests.serving.callers import RunApp, address, ask, recorded
from tests.serving.guarded import BLOCK, COUNT, MASK, SAID, Saying, guarded, through
from tests.serving.talking_engine import TalkingEngine


@pytest.mark.parametrize(
    "choice",
    [
        {"delta": {"reasoning": SAID}},
        {"delta": {"content": [{"type": "text", "text": SAID}]}},
        {"delta": {"function_call": {"name": "f", "arguments": SAID}}},
        {"delta": {"content": "x"}, "logprobs": {"content": [{"token": "bob@example.com"}]}},
        {"delta": {"content": SAID, "tool_calls": [{"index": 1, "function": {"arguments": SAID}}]}},
        {"index": [], "delta": {"content": SAID}},
        {"delta": {"content": SAID, "tool_calls": 5}},
        {"delta": {"tool_calls": [{"index": {}, "function": {"arguments": SAID}}]}},
        5,
    ],
)
def test_nothing_passes_because_its_form_is_not_known(choice: Any) -> None:
    told = through(CHAT, {"choices": [choice]})
    text = json.dumps(told)
    assert "bob@" not in text
    assert "4111" not in text
    assert text.count("[email]") == json.dumps(choice).count("bob@example.com about")


@pytest.mark.parametrize(
    "event",
    [
        f'data: {{"error": {{"message": "{SAID}"}}}}\n\n',
        f"data: {SAID}\n\n",
        'data: {"choices": [{"delta":\ndata:  {"content": "bob@example.com"}}]}\n\n',
        'data: {"choices": [{"delta": {"content": "bob@example.com"}}]}\nid: 7\n\n',
        'data: {"choices": [{"delta": {"content": "bob@example.com \\ud83d"}}]}\n\n',
        'data: {"choices": 5, "more": "bob@example.com"}\n\n',
        'data: {"choices": null, "more": "bob@example.com"}\n\n',
    ],
)
def test_odd_events_are_read_too(event: str) -> None:
    stream = GuardedStream(Guard([MASK], Side.OUTPUT), CHAT)
    told = stream.pass_on(event.encode()) + stream.finish()
    assert b"bob@" not in told
    assert b"[email]" in told


def test_each_answer_of_a_stream_that_is_blocked_ends() -> None:
    stream = GuardedStream(Guard([BLOCK], Side.OUTPUT), CHAT)
    made = [
        {"id": "c", "choices": [{"index": 0, "delta": {"content": "so "}}]},
        {"id": "c", "choices": [{"index": 1, "delta": {"content": "a falcon is"}}]},
        {"id": "c", "choices": [{"index": 0, "delta": {"content": "on"}}]},
    ]
    out = b"".join(stream.pass_on(f"data: {json.dumps(one)}\n\n".encode()) for one in made)
    *_, last, done = out.strip().split(b"\n\n")
    assert done == b"data: [DONE]"
    ends = json.loads(last[6:])
    assert (ends["id"], stream.finish()) == ("c", b"")
    assert {one["index"]: one["finish_reason"] for one in ends["choices"]} == {
        0: "content_filter",
        1: "content_filter",
    }


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ([{"choices": [{"text": SAID}]}], "application/json"),
        ({"choices": [{"text": SAID}], "nan": float("nan")}, "application/json"),
        ({"error": {"message": SAID}}, "application/json"),
        (
            {"output": [{"content": [{"text": "x", "logprobs": [{"token": "bob@"}]}]}]},
            "application/json",
        ),
        (SAID, "text/plain"),
        (f"data: {SAID}", "text/event-stream"),
    ],
)
async def test_whole_answers_of_any_form_are_read(
    gateway: Gateway, run_app: RunApp, body: Any, kind: str
) -> None:
    async def answer(request: web.Request) -> web.Response:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(body=text.encode(), headers={"content-type": kind})

    gateway.table = guarded(await run_app(answer), MASK)
    told = await ask(gateway, "mine", model="chat", messages=[])
    assert told.status_code == 200
    assert "bob@" not in told.text


async def test_an_answer_that_cannot_be_read_is_refused(gateway: Gateway, run_app: RunApp) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(
            text='{"content": ' + "[" * 500 + '"x"' + "]" * 500 + "}",
            content_type="application/json",
        )

    gateway.table = guarded(await run_app(answer), COUNT)
    told = await ask(gateway, "mine", model="chat", messages=[])
    assert told.status_code == 502
    assert not gateway.relays
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    refused = await ask(gateway, "mine", model="chat", messages=deep)
    assert refused.status_code == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"function": {"description": SAID}}]},
        {"chat_template_kwargs": {"context": SAID}},
        {"texts": [SAID]},
        {"messages": [{"content": [{"source": {"type": "text", "data": SAID}}]}]},
        {"messages": [{"content": [{"type": "tool_use", "input": {"url": SAID}}]}]},
    ],
)
async def test_all_fields_of_a_request_are_read(
    gateway: Gateway, run_app: RunApp, fields: dict[str, Any]
) -> None:
    engine = Saying("x")
    gateway.table = guarded(await run_app(engine.answer), MASK)
    await ask(gateway, "mine", **{"model": "chat", "messages": [], **fields})
    (asked,) = engine.asked
    assert "bob@" not in json.dumps(asked)
    assert "[email]" in json.dumps(asked)


async def test_vectors_and_what_is_only_counted_stay_as_they_are(
    gateway: Gateway, run_app: RunApp
) -> None:
    vectors = {"data": [{"embedding": [0.5] * 300_000, "index": 0}]}

    async def answer(request: web.Request) -> web.Response:
        return web.json_response(vectors)

    made = guarded(await run_app(answer), MASK)
    routes = (replace(made.routes[0], task=Task.EMBED),)
    gateway.table = replace(made, routes=routes)
    async with httpx.AsyncClient(base_url=address(gateway), trust_env=False) as client:
        headers = {"authorization": "Bearer mine"}
        body = {"model": "chat", "input": "x"}
        told = await client.post("/v1/embeddings", json=body, headers=headers)
    assert told.json() == vectors
    engine = Saying("karez")
    gateway.table = guarded(await run_app(engine.answer), COUNT)
    told = await ask(gateway, "mine", model="chat", messages=[], prompt=[1, 2])
    assert told.json()["choices"][0]["logprobs"] == {"a": 1}
    assert gateway.counts.guarded["p", "seen", "count"] == 1


async def test_a_stream_that_ends_blocked_at_its_takeover_ends_once(
    gateway: Gateway, run_app: RunApp
) -> None:
    """Its replica is lost after the last token that was asked for, which completes a match."""
    dying = TalkingEngine(dies_after=4, before_death=b"")
    made = guarded(await run_app(dying.answer), Guardrail(name="w", words=("a time, under the",)))
    keys = tuple(replace(key, calls=CallLimits(tokens_per_minute=1000)) for key in made.keys)
    gateway.table = replace(made, keys=keys)
    said = {"model": "chat", "messages": [{"role": "user", "content": "Tell: "}], "max_tokens": 4}
    answer = await ask(gateway, "mine", **said, stream=True)
    assert "upon" in answer.text
    assert len(recorded(gateway)) == 1
    assert gateway.admission.limiter._meters["key", "mine"].reserved == 0
