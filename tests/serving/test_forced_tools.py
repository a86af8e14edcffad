"""Calls of tools that a request insists on."""

import json
from dataclasses import replace
from typing import Any

import openai
import pytest

from karez.serving.answers import Refusal
from karez.serving.forced_tools import CallStream, as_call, force_tools
from karez.serving.gateway import Gateway
from tests.serving.callers import RunApp, address, table
from tests.serving.guarded import Saying

(ROUTE,) = table("http://a").routes
SAID = '{"name": "time", "arguments": {"zone": "UTC"}}'


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


def asked(choice: Any, **more: Any) -> dict[str, Any]:
    said = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]
    return {"messages": said, "tools": [tool("time"), tool("day")], "tool_choice": choice, **more}


def test_a_call_is_asked_for_by_a_schema() -> None:
    request = asked("required")
    assert force_tools(request, ROUTE)
    schema = request["response_format"]["json_schema"]["schema"]
    names = [one["properties"]["name"]["enum"] for one in schema["anyOf"]]
    assert names == [["time"], ["day"]]
    assert "tools" not in request
    assert request["messages"][0]["content"].startswith("Be kind.\n\n")
    assert '"name":"day"' in request["messages"][0]["content"]
    named = asked({"type": "function", "function": {"name": "day"}})
    assert force_tools(named, ROUTE)
    schema = named["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["name"]["enum"] == ["day"]


@pytest.mark.parametrize("choice", ["auto", "none", None])
def test_other_requests_stay_as_they_are(choice: Any) -> None:
    request = asked(choice)
    assert not force_tools(request, ROUTE)
    assert request == asked(choice)
    forced = asked("required")
    assert not force_tools(forced, replace(ROUTE, forces_tools=True))
    assert forced == asked("required")


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (asked({"type": "function", "function": {"name": "year"}}), "a function that is in tools"),
        (asked({"type": "function"}), "a function that is in tools"),
        ({"messages": [], "tool_choice": "required"}, "a function that is in tools"),
        ({"tools": [7, {"function": 7}], "tool_choice": "required"}, "that is in tools"),
        (asked("required", response_format={"type": "json_object"}), "not both"),
    ],
)
def test_what_cannot_be_forced_is_refused(request_: dict[str, Any], said: str) -> None:
    with pytest.raises(Refusal) as caught:
        force_tools(request_, ROUTE)
    assert (caught.value.status, said in caught.value.message) == (400, True)
    with pytest.raises(Refusal):
        force_tools(asked("required"), replace(ROUTE, has_schemas=False))


def test_an_answer_has_the_form_of_a_call_unless_it_was_cut_short() -> None:
    def answer(text: str) -> dict[str, Any]:
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        whole: dict[str, Any] = json.loads(as_call(json.dumps({"choices": [choice]}).encode(), "c"))
        return whole["choices"][0]

    choice = answer(SAID)
    (call,) = choice["message"]["tool_calls"]
    assert (call["function"]["name"], choice["finish_reason"]) == ("time", "tool_calls")
    assert json.loads(call["function"]["arguments"]) == {"zone": "UTC"}
    assert answer(SAID[:-9])["message"]["content"] == SAID[:-9]
    for odd in (b"no", b"[]", b'{"choices": null}', b'{"choices": [7]}'):
        assert as_call(odd, "c").replace(b" ", b"") == odd.replace(b" ", b"")


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_stream_tells_the_call_at_its_end(is_whole: bool) -> None:
    stream, text = CallStream("c"), SAID if is_whole else SAID[:-9]
    deltas = [{"role": "assistant", "content": None}, *({"content": one} for one in text)]
    events = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    events += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, {"choices": []}]
    data = b"".join(b"data: %s\n\n" % json.dumps(one).encode() for one in events)
    told = stream.pass_on(data + b"data: [DONE]\n\n").split(b"\n\n")
    assert told[-2] == b"data: [DONE]"
    choices = [json.loads(one[6:])["choices"] for one in told[:-2]]
    assert not any(one[0]["delta"].get("content") for one in choices[:-2])
    (last,) = choices[-2]
    if is_whole:
        assert last["finish_reason"] == "tool_calls"
        assert last["delta"]["tool_calls"][0]["function"]["name"] == "time"
    else:
        assert (last["finish_reason"], last["delta"]["content"]) == ("stop", text)


async def test_a_call_is_forced_through_the_gateway(gateway: Gateway, run_app: RunApp) -> None:
    engine = Saying(SAID)
    gateway.table = table(await run_app(engine.answer))
    insisting: Any = {**asked("required"), "model": "chat"}
    client = openai.AsyncOpenAI(base_url=f"{address(gateway)}/v1", api_key="mine", max_retries=0)
    whole = await client.chat.completions.create(**insisting)
    stream = await client.chat.completions.create(**insisting, stream=True)
    choices = [event.choices[0] async for event in stream]
    calls = [call for one in choices for call in one.delta.tool_calls or ()]
    assert whole.choices[0].message.tool_calls is not None
    assert [call.function.name for call in calls if call.function] == ["time"]
    assert whole.choices[0].finish_reason == choices[-1].finish_reason == "tool_calls"
    assert {asked_["response_format"]["type"] for asked_ in engine.asked} == {"json_schema"}
    route = replace(gateway.table.routes[0], has_schemas=False)
    gateway.table = replace(gateway.table, routes=(route,))
    with pytest.raises(openai.BadRequestError, match="leave out tool_choice"):
        await client.chat.completions.create(**insisting)
    await client.close()
