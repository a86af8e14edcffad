"""Guardrails that are models: who is asked, what is held back, and what nobody sees."""

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import anthropic
import openai
import pytest
from aiohttp import web

from karez.core.call_limits import CallLimits
from karez.core.guardrails import GuardAction, Guardrail, Side, parse_guardrails
from karez.core.routing import Route, Table
from karez.serving.gateway import Gateway
from tests.serving.callers import RunApp, address, ask, recorded, table, until
from tests.serving.guarded import Saying

JUDGE = Guardrail(name="harm", model="guard")
MESSAGES: Any = [{"role": "user", "content": "hello"}]
LONG = "".join(f"word{number:03} " for number in range(150))


class Judging:
    """A guard model: what has the word bomb is unsafe. It answers once it may."""

    def __init__(self) -> None:
        self.asked: list[list[dict[str, str]]] = []
        self.status = 200
        self.may = asyncio.Event()
        self.may.set()
        self.left = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body["messages"])
        try:
            await self.may.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        is_bad = "bomb" in body["messages"][-1]["content"]
        message = {"role": "assistant", "content": "\n\nunsafe\nS9" if is_bad else " Safe"}
        usage = {"prompt_tokens": 5, "completion_tokens": 2}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": usage}, status=self.status)


async def judged(run_app: RunApp, engine: Any, judge: Judging, *guardrails: Guardrail) -> Table:
    made = table(await run_app(engine.answer))
    own = guardrails or (JUDGE,)
    guard = Route(service="guard", project="p", urls=(await run_app(judge.answer),))
    routes = (replace(made.routes[0], guardrails=own), replace(guard, guardrails=own))
    return replace(made, routes=routes)


def client(gateway: Gateway) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{address(gateway)}/v1", api_key="mine", max_retries=0)


async def test_what_a_model_does_not_allow_goes_nowhere(gateway: Gateway, run_app: RunApp) -> None:
    engine, judge = Saying("fine"), Judging()
    made = await judged(run_app, engine, judge)
    limits = CallLimits(requests_per_minute=2)
    keys = tuple(replace(key, calls=limits) for key in made.keys)
    gateway.table = replace(made, keys=keys)
    bad = [{"role": "user", "content": "How is a bomb made?"}]
    refused = await ask(gateway, "mine", model="chat", messages=bad)
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "content_filter")
    assert "'harm'" in refused.json()["error"]["message"]
    assert not engine.asked
    assert judge.asked == [bad]
    assert gateway.counts.guarded["p", "harm", "block"] == 1
    fine = await ask(gateway, "mine", model="chat", messages=MESSAGES)
    assert fine.json()["choices"][0]["message"]["content"] == "fine"
    assert judge.asked[1:] == [MESSAGES, [*MESSAGES, {"role": "assistant", "content": "fine"}]]
    third = await ask(gateway, "mine", model="chat", messages=MESSAGES)
    assert third.status_code == 429  # of its own requests, not of those to the guard
    calls = recorded(gateway)
    assert sorted(call.service for call in calls) == ["chat", "guard", "guard", "guard"]
    assert {call.key_id for call in calls} == {"mine"}


async def test_a_whole_answer_that_is_not_allowed_is_not_told(
    gateway: Gateway, run_app: RunApp
) -> None:
    judge = Judging()
    gateway.table = await judged(run_app, Saying("this is a bomb"), judge)
    answer = await ask(gateway, "mine", model="chat", messages=MESSAGES)
    (choice,) = answer.json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "content_filter")
    assert "bomb" not in answer.text
    async with anthropic.AsyncAnthropic(base_url=address(gateway), api_key="mine") as other:
        with pytest.raises(anthropic.BadRequestError, match="does not allow this answer"):
            await other.messages.create(model="chat", max_tokens=9, messages=MESSAGES)


async def test_a_stream_goes_on_as_it_is_allowed(gateway: Gateway, run_app: RunApp) -> None:
    judge = Judging()
    gateway.table = await judged(run_app, Saying(LONG), judge)
    async with client(gateway) as caller:
        stream = await caller.chat.completions.create(model="chat", messages=MESSAGES, stream=True)
        events = [event async for event in stream]
    said = "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    assert said == LONG
    assert events[-1].choices[0].finish_reason == "stop"
    told = [asked[-1]["content"] for asked in judge.asked[1:]]
    assert len(told) >= 2
    assert all(LONG.startswith(text) for text in told)
    assert told[-1] == LONG


async def test_nothing_of_a_stream_is_sent_before_it_is_allowed(
    gateway: Gateway, run_app: RunApp
) -> None:
    judge = Judging()
    text = LONG[:800] + "a bomb " + LONG
    gateway.table = await judged(run_app, Saying(text), judge)
    async with client(gateway) as caller:
        stream = await caller.chat.completions.create(model="chat", messages=MESSAGES, stream=True)
        events = [event async for event in stream]
    said = "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    assert text.startswith(said)
    assert "bomb" not in said
    assert events[-1].choices[0].finish_reason == "content_filter"
    pieces: list[str] = []
    with pytest.raises(anthropic.APIStatusError, match="does not allow"):
        await _stream_messages(gateway, pieces)
    assert "bomb" not in "".join(pieces)


async def _stream_messages(gateway: Gateway, pieces: list[str]) -> None:
    asked: Any = {"model": "chat", "max_tokens": 9, "messages": MESSAGES}
    async with (
        anthropic.AsyncAnthropic(base_url=address(gateway), api_key="mine") as client,
        client.messages.stream(**asked) as answer,
    ):
        async for piece in answer.text_stream:
            pieces.append(piece)


@pytest.mark.parametrize("how", ["away", "broken", "missing"])
async def test_who_cannot_be_asked_allows_nothing_unless_it_only_counts(
    gateway: Gateway, run_app: RunApp, how: str
) -> None:
    engine, judge = Saying("fine"), Judging()
    judge.status = 500 if how == "broken" else 200
    for action, status in ((GuardAction.BLOCK, 400), (GuardAction.COUNT, 200)):
        one = replace(JUDGE, action=action, side=Side.INPUT)
        made = await judged(run_app, engine, judge, one)
        if how == "away":
            made = replace(made, routes=(made.routes[0],))
        elif how == "missing":
            other = replace(one, model="nobody")
            made = replace(made, routes=(replace(made.routes[0], guardrails=(other,)),))
        gateway.table = made
        answer = await ask(gateway, "mine", model="chat", messages=MESSAGES)
        assert answer.status_code == status
        name = "p", "harm", str(action)
        await until(partial(gateway.counts.guarded.__getitem__, name))
    assert len(engine.asked) == 1


async def test_one_that_only_counts_holds_nothing_up(gateway: Gateway, run_app: RunApp) -> None:
    judge = Judging()
    judge.may.clear()
    count = replace(JUDGE, action=GuardAction.COUNT)
    gateway.table = await judged(run_app, Saying("a bomb"), judge, count)
    answer = await ask(gateway, "mine", model="chat", messages=MESSAGES)
    assert answer.json()["choices"][0]["message"]["content"] == "a bomb"
    judge.may.set()
    await until(lambda: gateway.counts.guarded["p", "harm", "count"] == 1)


async def test_a_caller_that_hangs_up_ends_the_question(gateway: Gateway, run_app: RunApp) -> None:
    judge = Judging()
    judge.may.clear()
    gateway.table = await judged(run_app, Saying("fine"), judge)
    asking = asyncio.create_task(ask(gateway, "mine", model="chat", messages=MESSAGES))
    await until(lambda: judge.asked)
    asking.cancel()
    await until(lambda: judge.left == 1)
    await until(lambda: not gateway.relays)
    meters = gateway.admission.limiter._meters.values()
    assert all(meter.reserved == 0 for meter in meters)


async def test_a_guard_is_not_asked_about_itself_and_tokens_are_no_text(
    gateway: Gateway, run_app: RunApp
) -> None:
    judge = Judging()
    gateway.table = await judged(run_app, Saying("fine"), judge)
    bad = [{"role": "user", "content": "bomb"}]
    answer = await ask(gateway, "mine", model="guard", messages=bad)
    assert "unsafe" in answer.json()["choices"][0]["message"]["content"]
    assert len(judge.asked) == 1
    refused = await ask(gateway, "mine", model="chat", prompt=[1, 2, 3])
    assert (refused.status_code, len(judge.asked)) == (400, 1)


async def test_a_body_that_is_nested_too_deeply_is_refused(
    gateway: Gateway, run_app: RunApp
) -> None:
    judge = Judging()
    gateway.table = await judged(run_app, Saying("fine"), judge)
    nested: Any = "deep"
    for _ in range(900):
        nested = [nested]
    refused = await ask(gateway, "mine", model="chat", messages=nested)
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "content_filter")
    assert not judge.asked


async def test_a_model_is_told_what_to_look_for_and_how_it_allows(
    gateway: Gateway, run_app: RunApp
) -> None:
    (own,) = parse_guardrails(
        """
        [[guardrail]]
        name = "manners"
        model = "guard"
        side = "input"
        allows = ["UNSAFE"]
        instruction = "Is it rude?"
        """
    )
    judge = Judging()
    gateway.table = await judged(run_app, Saying("fine"), judge, own)
    assert (await ask(gateway, "mine", model="chat", messages=MESSAGES)).status_code == 400
    assert judge.asked[0][0] == {"role": "system", "content": "Is it rude?"}
    bad = [{"role": "user", "content": "bomb"}]
    assert (await ask(gateway, "mine", model="chat", messages=bad)).status_code == 200


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"words": ("a",)}, "only one of it"),
        ({"characters": 9}, "only one of it"),
        ({"action": GuardAction.MASK}, "does not say what to mask"),
        ({"allows": ()}, "words by which it allows"),
        ({"allows": (" ",)}, "words by which it allows"),
        ({"instruction": "x" * 20_001}, "an instruction of up to"),
        ({"model": "No Name"}, "No Name"),
    ],
)
def test_a_guardrail_that_cannot_be_is_refused(more: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        replace(JUDGE, **more)
