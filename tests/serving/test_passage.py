"""Files and batches on their way to control and back: nothing is held in memory, nobody waits."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace

import httpx
import pytest
from aiohttp import web

from karez.core.identity import Role
from karez.serving import passage
from karez.serving.gateway import Gateway
from tests.serving.callers import address, serve, table, until

Control = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def control_of(gateway: Gateway, answer: Control) -> web.AppRunner:
    """A control that answers so."""
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, handler_cancellation=True)
    gateway.control = f"{await serve(runner)}/api/v1/openai"
    gateway.table = table()
    return runner


def client_of(gateway: Gateway, key: str = "mine") -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.AsyncClient(
        base_url=address(gateway), headers=headers, trust_env=False, timeout=30
    )


async def connect(gateway: Gateway) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = address(gateway).removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port), limit=1 << 14)


async def test_a_large_file_goes_through_whole_and_its_answer_too(gateway: Gateway) -> None:
    body = bytes(range(256)) * 40_000  # 10 MB: more than is held in memory

    async def answer(request: web.Request) -> web.StreamResponse:
        sent = await request.read()
        told = {
            "path": request.path_qs,
            "method": request.method,
            "key": request.headers["authorization"],
            "kind": request.headers.get("content-type", ""),
            "hash": hashlib.sha256(sent).hexdigest(),
        }
        if request.method == "GET":
            return web.Response(body=body, content_type="application/octet-stream")
        return web.json_response(told, status=201)

    runner = await control_of(gateway, answer)
    async with client_of(gateway) as client:
        sent = await client.post("/v1/files?a=b", content=body, headers={"content-type": "x/y"})
        assert sent.status_code == 201
        assert sent.json() == {
            "path": "/api/v1/openai/files?a=b",
            "method": "POST",
            "key": "Bearer mine",
            "kind": "x/y",
            "hash": hashlib.sha256(body).hexdigest(),
        }
        got = await client.get("/v1/files/art-1/content")
        assert (got.content == body, got.headers["content-type"]) == (
            True,
            "application/octet-stream",
        )
        gone = await client.delete("/v1/files/art-1")
        assert (gone.json()["method"], gone.json()["path"]) == (
            "DELETE",
            "/api/v1/openai/files/art-1",
        )
    assert not gateway.passages
    await runner.cleanup()


async def test_what_is_not_passed_on(gateway: Gateway) -> None:
    async with client_of(gateway) as client:
        assert (await client.delete("/v1/batches/b")).status_code == 405
        assert (await client.put("/v1/files")).status_code == 405
        assert (await client.get("/v1/filesystem")).status_code == 404
        assert (await client.get("/v1/jobs")).status_code == 404
        unknown = {"authorization": "Bearer nobody"}
        assert (await client.get("/v1/files", headers=unknown)).status_code == 401
    for line, length, status in (
        ("GET /v1/files/../jobs", 0, 404),
        ("POST /v1/files", 600 << 20, 413),
        ("POST /v1/batches", 40 << 20, 413),
    ):
        reader, writer = await connect(gateway)
        head = f"{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer mine\r\n"
        writer.write(f"{head}content-length: {length}\r\n\r\n".encode())
        assert f" {status} ".encode() in await reader.readline()
        writer.close()


async def test_a_control_that_is_away_is_said_to_be(gateway: Gateway) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        raise asyncio.CancelledError

    runner = await control_of(gateway, answer)
    async with client_of(gateway) as client:
        broken = await client.get("/v1/batches")
        assert (broken.status_code, broken.headers["retry-after"]) == (503, "1")
        assert broken.json()["error"]["type"] == "service_unavailable_error"
        await runner.cleanup()
        assert (await client.get("/v1/batches")).status_code == 503
    assert not gateway.passages


async def test_who_hangs_up_frees_control(gateway: Gateway) -> None:
    running = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal running
        running += 1
        try:
            await asyncio.sleep(60)
        finally:
            running -= 1
        return web.Response()

    runner = await control_of(gateway, answer)
    async with client_of(gateway) as client:
        waiting = asyncio.create_task(client.get("/v1/batches"))
        await until(lambda: running == 1)
        waiting.cancel()
    await until(lambda: running == 0 and not gateway.passages)
    await runner.cleanup()


async def test_only_so_many_are_on_their_way(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passage, "MOST", 1)
    is_open = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        await is_open.wait()
        return web.json_response({}, headers={"retry-after": "7"}, status=429)

    runner = await control_of(gateway, answer)
    async with client_of(gateway) as client:
        first = asyncio.create_task(client.get("/v1/batches"))
        await until(lambda: gateway.passages)
        assert (await client.get("/v1/batches")).status_code == 429
        is_open.set()
        assert (await first).headers["retry-after"] == "7"
    await runner.cleanup()


async def test_a_slow_reader_of_a_file_does_not_fill_the_gateway(gateway: Gateway) -> None:
    sent = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(400):
            await response.write(b"x" * 100_000)
            sent += 100_000
        return response

    runner = await control_of(gateway, answer)
    reader, writer = await connect(gateway)
    writer.write(
        b"GET /v1/files/f/content HTTP/1.1\r\nhost: x\r\nauthorization: Bearer mine\r\n\r\n"
    )
    last = -1
    while sent != last:  # until nothing moves any more
        last = sent
        await asyncio.sleep(0.2)
    assert 0 < sent < 30_000_000
    total = 0
    while data := await reader.read(1 << 20):
        total += len(data)
        if data.endswith(b"\r\n0\r\n\r\n"):
            break
    assert total > 40_000_000
    writer.close()
    await runner.cleanup()


async def test_a_refusal_before_all_is_sent_reaches_the_caller(gateway: Gateway) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        refused = web.json_response({"error": {"message": "too many uploads"}}, status=429)
        refused.force_close()
        return refused

    runner = await control_of(gateway, answer)
    async with client_of(gateway) as client:
        refused = await client.post("/v1/files", content=bytes(30_000_000))
    assert (refused.status_code, "too many uploads" in refused.text) == (429, True)
    await runner.cleanup()


async def test_who_never_reads_is_dropped(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passage, "SILENT_S", 0.3)

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=bytes(40_000_000))

    runner = await control_of(gateway, answer)
    _, writer = await connect(gateway)
    writer.write(
        b"GET /v1/files/f/content HTTP/1.1\r\nhost: x\r\nauthorization: Bearer mine\r\n\r\n"
    )
    await until(lambda: gateway.passages)
    await until(lambda: not gateway.passages)
    writer.close()
    await runner.cleanup()


async def test_a_control_that_stops_to_read_is_given_up(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passage, "SILENT_S", 0.3)
    is_over = asyncio.Event()

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await is_over.wait()
        writer.close()

    server = await asyncio.start_server(stuck, "127.0.0.1", 0, limit=1 << 10)
    gateway.control = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v1/openai"
    gateway.table = table()
    async with client_of(gateway) as client:
        told = await client.post("/v1/files", content=bytes(30_000_000))
    assert told.status_code == 503
    assert not gateway.passages
    is_over.set()
    server.close()


async def test_bodies_on_their_way_count_and_end_with_their_connections(gateway: Gateway) -> None:
    gateway.table = table()
    head = b"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer mine\r\n"
    head += b"content-length: 9000000\r\n\r\n"
    writers = []
    for _ in range(passage.MOST_OF_A_KEY):
        _, writer = await connect(gateway)
        writer.write(head + b"x" * 1000)
        writers.append(writer)
    await until(lambda: len(gateway.passages) == passage.MOST_OF_A_KEY)
    async with client_of(gateway) as client:
        assert (await client.get("/v1/files")).status_code == 429
    for writer in writers:
        writer.close()
    await until(lambda: not gateway.passages)


async def test_who_may_only_read_sends_nothing(gateway: Gateway) -> None:
    made = table()
    viewer = replace(made.keys[0], id="viewer", role=Role.VIEWER)
    gateway.table = replace(made, keys=(*made.keys, viewer))
    async with client_of(gateway, "viewer") as client:
        assert (await client.post("/v1/files", content=b"x")).status_code == 403
        assert (await client.post("/v1/batches", json={})).status_code == 403
