"""Adapters of a service, and models that answer something else than text, at the gateway."""

from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from karez.core.engines import Task
from karez.serving.gateway import Gateway
from tests.serving.callers import RunApp, ask, recorded, table

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


async def test_an_adapter_is_answered_by_the_replicas_of_its_base(
    gateway: Gateway, run_app: RunApp
) -> None:
    seen: list[Any] = []

    async def engine(request: web.Request) -> web.Response:
        seen.append(await request.json())
        return web.json_response({"choices": [{"text": "hi"}], "usage": USAGE})

    (base,) = table(await run_app(engine), parallel=1).routes
    base = replace(base, scales=(0.0, 0.0))
    law = replace(base, service="law", base="chat", scales=(0.0, 1.0))
    gateway.table = replace(table(), routes=(base, law))
    for model in ("law", "chat"):
        assert (await ask(gateway, "mine", model=model, messages=[])).status_code == 200
    assert [(body["model"], [one["scale"] for one in body["lora"]]) for body in seen] == [
        ("law", [0.0, 1.0]),
        ("chat", [0.0, 0.0]),
    ]
    assert [call.service for call in recorded(gateway)] == ["law", "chat"]
    (load,) = gateway.load().services  # one queue, of the replicas that both have
    assert (load.service, load.admitted) == ("chat", 2)


@pytest.mark.parametrize("task", [Task.EMBED, Task.RERANK])
async def test_a_model_of_another_task_says_what_it_is_for(gateway: Gateway, task: Task) -> None:
    (route,) = table("http://127.0.0.1:9").routes
    gateway.table = replace(table(), routes=(replace(route, task=task),))
    answer = await ask(gateway, "mine", model="chat", messages=[])
    assert answer.status_code == 400
    path = {Task.EMBED: "/v1/embeddings", Task.RERANK: "/v1/rerank"}[task]
    assert answer.json()["error"]["message"].endswith(f"it is for {task}: call {path}.")
    assert recorded(gateway) == ()
