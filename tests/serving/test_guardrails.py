"""Guardrails of a project on what is asked and answered, whole and in streams."""

import json
from dataclasses import replace
from typing import Any

import anthropic
import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from karez.core.guardrails import GuardAction, Guardrail, Side, parse_guardrails
from karez.serving.gateway import Gateway
from karez.serving.guarded_stream import GuardedStream
from karez.serving.guards import Guard
from karez.serving.stream_log import CHAT
from tests.serving.callers import RunApp, address, ask, recorded, until
from tests.serving.guarded import BLOCK, COUNT, MASK, MASKED, SAID, Saying, events, guarded, through
from tests.serving.talking_engine import TalkingEngine


async def test_what_is_asked_and_answered_is_masked(gateway: Gateway, run_app: RunApp) -> None:
    engine = Saying(SAID)
    gateway.table = guarded(await run_app(engine.answer), MASK, COUNT)
    said = [{"role": "user", "content": SAID}, {"role": "user", "content": [{"text": SAID}]}]
    answer = await ask(gateway, "mine", model="chat", messages=said, user="a@b.example.com")
    assert answer.json()["choices"][0]["message"]["content"] == MASKED
    assert answer.json()["choices"][0]["logprobs"] is None
    (asked,) = engine.asked
    assert [one["content"] for one in asked["messages"]] == [MASKED, [{"text": MASKED}]]
    assert asked["user"] == "a@b.example.com"  # nothing that a model reads
    assert recorded(gateway)[0].completion_tokens == 9
    counted = gateway.counts.guarded["p", "personal", "mask"]
    assert counted == 3
    async with httpx.AsyncClient(trust_env=False) as client:
        told = (await client.get(f"{address(gateway)}/metrics")).text
    assert 'matches_total{project="p",guardrail="personal",action="mask"} 3' in told


async def test_what_is_not_allowed_goes_nowhere(gateway: Gateway, run_app: RunApp) -> None:
    engine = Saying("about Falcon, of course")
    long = Guardrail(name="long", side=Side.INPUT, characters=100)
    gateway.table = guarded(await run_app(engine.answer), BLOCK, long)
    for body in (
        {"messages": [{"role": "user", "content": "project FALCON?"}]},
        {"messages": [{"role": "user", "content": "x" * 60}] * 2},
        {"messages": [], "prompt": [1, 2, 3]},
        {"messages": [], "prompt": [[1, 2, 3]]},
    ):
        refused = await ask(gateway, "mine", model="chat", **body)
        assert (refused.status_code, refused.json()["error"]["type"]) == (400, "content_filter")
    assert not engine.asked
    answer = await ask(gateway, "mine", model="chat", messages=[])
    (choice,) = answer.json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "content_filter")
    assert "alcon" not in answer.text
    large = await ask(gateway, "mine", model="chat", messages=["x" * (1 << 20)])
    assert large.status_code == 413
    gateway.table = guarded(gateway.table.routes[0].urls[0], MASK)
    numbers = [{"role": "user", "content": "1 " * 100_000}]
    refused = await ask(gateway, "mine", model="chat", messages=numbers)
    assert refused.status_code == 400
    assert "more than 5,000 numbers" in refused.json()["error"]["message"]


async def test_streams_are_masked_and_end_where_they_are_blocked(
    gateway: Gateway, run_app: RunApp
) -> None:
    engine = Saying(SAID)
    gateway.table = guarded(await run_app(engine.answer), MASK, BLOCK)
    client = openai.AsyncOpenAI(base_url=f"{address(gateway)}/v1", api_key="mine", max_retries=0)

    async def say() -> tuple[str, list[str | None]]:
        stream = await client.chat.completions.create(
            model="chat", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        choices = [event.choices[0] async for event in stream]
        return "".join(one.delta.content or "" for one in choices), [
            one.finish_reason for one in choices if one.finish_reason
        ]

    assert await say() == (MASKED, ["stop"])
    engine.text = "It is sk-abcdefghijklmnopqrstuv, is it not? " * 1000
    text, reasons = await say()
    assert reasons == ["content_filter"]
    assert "It is ".startswith(text)
    await until(lambda: not gateway.relays)
    assert gateway.inflight == 0
    await client.close()


async def test_anthropics_messages_are_masked_too(gateway: Gateway, run_app: RunApp) -> None:
    engine = Saying(SAID)
    gateway.table = guarded(await run_app(engine.answer), MASK, BLOCK)
    client = anthropic.AsyncAnthropic(base_url=address(gateway), api_key="mine", max_retries=0)
    asking: Any = {
        "model": "chat",
        "max_tokens": 99,
        "system": "for bob@example.com",
        "messages": [{"role": "user", "content": "hi"}],
    }
    async with client.messages.stream(**asking) as stream:
        assert "".join([text async for text in stream.text_stream]) == MASKED
    whole = await client.messages.create(**asking)
    assert whole.content[0].text == MASKED
    assert {asked["system"] for asked in engine.asked} == {"for [email]"}
    engine.text = "a falcon"
    with pytest.raises(anthropic.BadRequestError, match="secrets"):
        await client.messages.create(**asking)
    with pytest.raises(anthropic.APIStatusError, match="secrets"):
        async with client.messages.stream(**asking) as stream:
            await stream.get_final_message()
    await client.close()


async def test_a_guarded_stream_outlives_its_replica(gateway: Gateway, run_app: RunApp) -> None:
    dying, whole = TalkingEngine(dies_after=4), TalkingEngine()
    urls = (await run_app(dying.answer), await run_app(whole.answer))
    hidden = Guardrail(name="words", action=GuardAction.MASK, words=("under the desert, a karez",))
    made = guarded(urls[0], hidden)
    gateway.table = replace(made, routes=(replace(made.routes[0], urls=urls),))
    gateway.pool(urls[1]).inflight = 1  # so that the other one is asked first
    messages = [{"role": "user", "content": "Tell: "}]
    answer = await ask(gateway, "mine", model="chat", messages=messages, stream=True)
    said = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    text = "".join(one["choices"][0]["delta"].get("content") or "" for one in said)
    assert text.startswith("Once upon a time, [removed] ran. ")
    assert gateway.counts.takeovers == 1


@given(
    size=st.integers(1, 20),
    text=st.lists(st.sampled_from([SAID, "and so", "bob@", "4111 1111", "."]), max_size=4),
    has_last=st.booleans(),
)
def test_a_stream_says_what_the_whole_would(size: int, text: list[str], has_last: bool) -> None:
    said = " ".join(text)
    whole = Guard([MASK], Side.OUTPUT).read(said, is_last=True)
    stream = GuardedStream(Guard([MASK], Side.OUTPUT), CHAT)
    made = events(said, size)
    if has_last and len(made) > 2:  # some engines say the last piece with the reason of the end
        made[-1]["choices"][0]["delta"] = made.pop(-2)["choices"][0]["delta"]
    out = b"".join(stream.pass_on(f"data: {json.dumps(one)}\n\n".encode()) for one in made)
    out += stream.pass_on(b"data: [DONE]\n\n")
    assert out.endswith(b"data: [DONE]\n\n")
    told = [json.loads(event[6:]) for event in out.split(b"\n\n") if event.startswith(b"data: {")]
    choices = [one["choices"][0] for one in told]
    assert "".join(one["delta"].get("content", "") for one in choices) == whole
    assert [bool(one.get("finish_reason")) for one in choices].index(True) == len(choices) - 1


def test_all_texts_of_the_other_streams_are_read() -> None:
    pieces = [SAID[at : at + 7] for at in range(0, len(SAID), 7)]
    where = {"output_index": 0, "content_index": 0}
    delta = {"type": "response.output_text.delta", **where}
    whole = {"type": "response.completed", "response": {"output": [{"text": SAID}]}}
    done = {"type": "response.output_text.done", **where, "text": SAID}
    told = through("/v1/responses", *({**delta, "delta": one} for one in pieces), done, whole)
    assert "".join(one.get("delta", "") for one in told) == MASKED
    assert [one["type"] for one in told[-2:]] == [done["type"], whole["type"]]
    assert told[-2]["text"] == told[-1]["response"]["output"][0]["text"] == MASKED

    texts = [{"choices": [{"index": n % 2, "text": one}]} for one in pieces for n in range(2)]
    told = through("/v1/completions", *texts)  # two answers at once, and no end
    for index in range(2):
        choices = [one["choices"][0] for one in told]
        assert "".join(one["text"] for one in choices if one["index"] == index) == MASKED

    calls = [{"tool_calls": [{"index": 0, "function": {"arguments": one}}]} for one in pieces]
    told = through(CHAT, *({"choices": [{"index": 0, "delta": one}]} for one in calls))
    functions = [one["choices"][0]["delta"]["tool_calls"][0]["function"] for one in told]
    assert "".join(one["arguments"] for one in functions) == MASKED


FILE = """
[[guardrail]]
name = "personal"
action = "mask"
patterns = ["email", "card"]

[[guardrail]]
name = "secrets"
patterns = ["credential"]
words = ["falcon"]

[[guardrail]]
name = "long"
side = "input"
characters = 20000
"""


def test_a_file_of_guardrails_is_read() -> None:
    long = Guardrail(name="long", side=Side.INPUT, characters=20000)
    assert parse_guardrails(FILE) == (MASK, BLOCK, long)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("guardrail = 1", "write [[guardrail]]"),
        ('[[guardrail]]\nname = "a"', "has patterns, words, characters or a model"),
        ('[[guardrail]]\nname = "a"\nwords = ["b"]\nregex = "c"', "unknown key"),
        ('[[guardrail]]\nname = "a"\nwords = "b"', "a list of texts"),
        ('[[guardrail]]\nname = "a"\nwords = [""]', "1 to 200 characters"),
        ('[[guardrail]]\nname = "a"\npatterns = ["dna"]', "dna"),
        ('[[guardrail]]\nname = "a"\ncharacters = "9"', "a whole number"),
        ('[[guardrail]]\nname = "a"\ncharacters = 9\naction = "mask"', "cannot be masked"),
        ('[[guardrail]]\nname = "a"\ncharacters = 9\nwords = ["b"]', "only one of it"),
        ('[[guardrail]]\nwords = ["b"]', "name"),
        ('[[guardrail]]\nname = "a"\nwords = ["b"]\n' * 2, "a name of its own"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("[", r"\[")):
        parse_guardrails(text)
