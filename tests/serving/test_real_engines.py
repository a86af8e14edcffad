"""Two llama.cpp servers of one tiny model behind the gateway, called by the vendors' packages."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anthropic
import openai
import pytest
from typing_extensions import override

from karez.serving.gateway import Gateway
from karez.serving.relay_counts import Histogram
from tests.serving.callers import address, recorded, table
from tests.tiny_model import write_decided_model

pytestmark = pytest.mark.story
SERVER = """
import signal, sys, xllamacpp
model, port, context, slots = sys.argv[1], *map(int, sys.argv[2:])
params = xllamacpp.CommonParams()
params.model.path, params.port, params.hostnames = model, port, ["127.0.0.1"]
params.model_alias, params.api_keys = {"chat"}, ["engine-key"]
params.n_parallel, params.n_ctx = slots, context * slots
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print("ready", flush=True)
signal.pause()
"""
SLOTS, CONTEXT, TOKENS = 16, 1024, 500


async def _replica(folder: Path, port: int) -> asyncio.subprocess.Process:
    arguments = [str(folder / "tiny.gguf"), str(port), str(CONTEXT), str(SLOTS)]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, *arguments, stdout=-1, stderr=asyncio.subprocess.DEVNULL
    )


async def _free_port() -> int:
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()
    return port


@pytest.fixture
async def replicas(
    tmp_path: Path, gateway: Gateway
) -> AsyncIterator[list[tuple[asyncio.subprocess.Process, str]]]:
    """Two replicas: the process and the URL of each."""
    write_decided_model(tmp_path / "tiny.gguf", CONTEXT)
    ports = [await _free_port(), await _free_port()]
    processes = [await _replica(tmp_path, port) for port in ports]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    gateway.table = table(*urls, parallel=SLOTS)
    yield list(zip(processes, urls, strict=True))
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _openai(gateway: Gateway) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=address(gateway) + "/v1", api_key="mine", max_retries=0)


async def _stream(gateway: Gateway, number: int, pieces: list[str]) -> None:
    """Stream an answer of TOKENS, piece by piece."""
    async with _openai(gateway) as client:
        answer = await client.chat.completions.create(
            model="chat",
            messages=[{"role": "user", "content": chr(65 + number) * 9}],
            max_tokens=TOKENS,
            temperature=0,
            stream=True,
        )
        async for event in answer:
            if event.choices and event.choices[0].delta.content:
                pieces.append(event.choices[0].delta.content)


async def _streams(gateway: Gateway) -> tuple[list[asyncio.Task[None]], list[list[str]]]:
    said: list[list[str]] = [[] for _ in range(SLOTS)]
    tasks = [asyncio.create_task(_stream(gateway, n, pieces)) for n, pieces in enumerate(said)]
    return tasks, said


class AtFirst(Histogram):
    """Acts as soon as a first piece has come, when no engine can have said all yet."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self._act: Callable[[], None] | None = act

    @override
    def append(self, seconds: float) -> None:
        super().append(seconds)
        act, self._act = self._act, None
        if act is not None:
            act()


def _speaking(gateway: Gateway) -> str:
    """The URL of a replica that has sent a piece of a stream."""
    return next(one._told.replica for one in gateway.relays if one._has_first)


async def test_no_stream_breaks_when_a_replica_is_killed(
    gateway: Gateway, replicas: list[tuple[asyncio.subprocess.Process, str]]
) -> None:
    tasks, undisturbed = await _streams(gateway)
    await asyncio.gather(*tasks)
    texts = ["".join(pieces) for pieces in undisturbed]
    assert {len(text) for text in texts} == {TOKENS}
    assert len(set(texts)) > 1
    pids = {url: process.pid for process, url in replicas}
    gateway.counts.first_s = AtFirst(lambda: os.kill(pids[_speaking(gateway)], signal.SIGKILL))
    tasks, said = await _streams(gateway)
    await asyncio.gather(*tasks)
    assert ["".join(pieces) for pieces in said] == texts
    assert 0 < gateway.counts.takeovers <= SLOTS
    calls = recorded(gateway)
    assert {(call.status, call.completion_tokens) for call in calls} == {(200, TOKENS)}
    assert sum(call.prompt_tokens for call in calls[:SLOTS]) == sum(
        call.prompt_tokens for call in calls[SLOTS:]
    )


async def test_openais_package_needs_no_change(
    gateway: Gateway, replicas: list[tuple[asyncio.subprocess.Process, str]]
) -> None:
    assert replicas
    async with _openai(gateway) as client:
        assert [model.id async for model in client.models.list()] == ["chat"]
        chat = await client.chat.completions.create(
            model="chat", messages=[{"role": "user", "content": "hi"}], max_tokens=5
        )
        assert chat.usage is not None
        assert chat.usage.completion_tokens == 5
        text = await client.completions.create(model="chat", prompt="hi", max_tokens=4)
        assert text.usage is not None
        response = await client.responses.create(model="chat", input="hi", max_output_tokens=3)
        assert response.usage is not None
        with pytest.raises(openai.NotFoundError, match="no model 'none'"):
            await client.completions.create(model="none", prompt="hi")
        with pytest.raises(openai.APIStatusError, match="embeddings"):
            await client.embeddings.create(model="chat", input="hi")
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="none").models.list()
        raw = await client.completions.with_raw_response.create(
            model="chat", prompt="hi", max_tokens=1
        )
        assert float(raw.headers["x-karez-overhead-ms"]) >= 0
        ident = raw.headers["x-request-id"]
    calls = recorded(gateway)
    assert [call.completion_tokens for call in calls] == [5, 4, 3, 1]
    assert calls[-1].id == ident


async def test_anthropics_package_needs_no_change(
    gateway: Gateway, replicas: list[tuple[asyncio.subprocess.Process, str]]
) -> None:
    assert replicas
    client = anthropic.AsyncAnthropic(base_url=address(gateway), api_key="mine", max_retries=0)
    async with client:
        whole = await client.messages.create(
            model="chat", max_tokens=5, messages=[{"role": "user", "content": "hi"}]
        )
        assert whole.usage.output_tokens == 5
        async with client.messages.stream(
            model="chat",
            max_tokens=6,
            messages=[{"role": "user", "content": "hi"}],
            extra_body={"temperature": 0},  # a first letter cut in two confuses llama.cpp
        ) as stream:
            last = await stream.get_final_message()
        with pytest.raises(anthropic.NotFoundError, match="no model 'none'"):
            await client.messages.create(
                model="none", max_tokens=5, messages=[{"role": "user", "content": "hi"}]
            )
        with pytest.raises(anthropic.AuthenticationError):
            await client.with_options(api_key="none").messages.create(
                model="chat", max_tokens=5, messages=[{"role": "user", "content": "hi"}]
            )
    assert last.usage.output_tokens == 6
    calls = recorded(gateway)
    assert [call.completion_tokens for call in calls] == [5, 6]
    assert calls[0].prompt_tokens == calls[1].prompt_tokens > last.usage.input_tokens
