"""What callers send that is no proper request, or not in one piece, or never ends."""

import asyncio
import json
import socket
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from typing_extensions import override

from karez.serving import http_connection, relay
from karez.serving.gateway import Gateway
from tests.serving.callers import ADDRESSES, RunApp, recorded, table, until

KEY = b"authorization: Bearer mine\r\n"
BODY = b'{"model": "chat", "messages": []}'
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\n"
MODELS = b"GET /v1/models HTTP/1.1\r\nhost: g\r\n" + KEY + b"\r\n"


def post(body: bytes = BODY, *headers: bytes) -> bytes:
    return POST + KEY + b"".join(headers) + b"content-length: %d\r\n\r\n" % len(body) + body


async def exchange(gateway: Gateway, *pieces: bytes, ends: bool = True) -> bytes:
    """Send pieces; returns all that comes until the gateway closes, or is asked to."""
    reader, writer = await asyncio.open_connection(*ADDRESSES[id(gateway)])
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0)
    if ends:
        writer.write(b"GET /health HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n")
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture
async def echo(gateway: Gateway, run_app: RunApp) -> list[bytes]:
    """An engine that answers with the number of the request, and keeps what it got."""
    got: list[bytes] = []

    async def answer(request: web.Request) -> web.Response:
        got.append(await request.read())
        usage = {"prompt_tokens": len(got), "completion_tokens": 1}
        return web.json_response({"number": len(got), "usage": usage})

    gateway.table = table(await run_app(answer))
    return got


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (POST + KEY + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + KEY + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!", 400),
        (POST + KEY + b"transfer-encoding: gzip\r\n\r\n", 400),
        (POST + KEY + b"content-length: -1\r\n\r\n", 400),
        (POST + KEY + b"content-length: 99999999999999999999999\r\n\r\n", 400),
        (POST + KEY + b"content-length: 104857600\r\n\r\n" + b"x" * 70000, 413),
        (POST + b"content-length: 1000\r\n\r\n", 401),
        (POST + b"authorization: Bearer \xff\xfe\r\ncontent-length: 0\r\n\r\n", 401),
        (POST + b"x-api-key: none\r\ncontent-length: 0\r\n\r\n", 401),
        (POST + KEY + b"x: " + b"y" * 70000 + b"\r\n\r\n", 431),
        (POST + KEY + b"a: b\r\n" * 20000 + b"\r\n", 431),
        (b"GET /v1/chat/completions HTTP/1.1\r\nhost: g\r\n" + KEY + b"\r\n", 405),
        (b"DELETE /v1/models HTTP/1.1\r\nhost: g\r\n" + KEY + b"\r\n", 405),
        (b"GET /none HTTP/1.1\r\nhost: g\r\n" + KEY + b"\r\n", 404),
        (post(b""), 400),
        (post(b"\xff\xfe"), 400),
        (post(b"[1]"), 400),
        (post(b'{"model": NaN}'), 400),
        (post(b'{"model": "\\ud800"}'), 400),
        (post(b"[" * 100_000), 400),
        (post(b'{"a":' * 50_000), 400),
        (post(b'{"model": "chat", "deep": ' + b"[" * 300 + b"]" * 300 + b"}"), 400),
        (b"GET /health HTTP/1.1\r\nhost: g\r\ncontent-length: 9\r\n\r\n", 400),
        (b"CONNECT g:80 HTTP/1.1\r\nhost: g\r\n" + KEY + b"\r\n", 404),
    ],
)
async def test_what_is_no_request_is_refused_and_harms_nobody_else(
    gateway: Gateway, echo: list[bytes], sent: bytes, status: int
) -> None:
    answer = await exchange(gateway, sent)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    head, _, rest = answer.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    assert set(json.loads(rest[:length])["error"]) == {"message", "type", "code", "param"}
    assert echo == []
    assert (await exchange(gateway, MODELS)).startswith(b"HTTP/1.1 200 OK")
    await until(lambda: len(gateway.connections) == 0)


async def test_requests_of_one_connection_are_answered_in_their_order(
    gateway: Gateway, echo: list[bytes]
) -> None:
    """More than wait at once, in pieces that begin and end anywhere."""
    sent = b"".join(post(json.dumps({"model": "chat", "n": n}).encode()) for n in range(20))
    pieces = [sent[at : at + 97] for at in range(0, len(sent), 97)]
    answer = await exchange(gateway, *pieces)
    numbers = [int(part.split(b",")[0]) for part in answer.split(b'{"number": ')[1:]]
    assert numbers == list(range(1, 21))
    assert [json.loads(one)["n"] for one in echo] == list(range(20))
    assert [call.prompt_tokens for call in recorded(gateway)] == numbers
    assert answer.endswith(b"}")


async def test_a_body_in_chunks_is_read(gateway: Gateway, echo: list[bytes]) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, bytes([byte])) for byte in BODY) + b"0\r\n\r\n"
    answer = await exchange(gateway, POST + KEY + b"transfer-encoding: chunked\r\n\r\n", chunks)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert json.loads(echo[0])["model"] == "chat"


async def test_a_caller_that_asks_first_is_told_to_go_on_or_not(
    gateway: Gateway, echo: list[bytes]
) -> None:
    """curl does so for larger bodies: without a valid key it never sends them."""
    told = await exchange(gateway, POST + b"expect: 100-continue\r\ncontent-length: 9\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 401 ")
    ahead = await exchange(gateway, post(BODY, b"expect: 100-continue\r\n"))
    assert ahead.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
    assert len(echo) == 1


async def test_http_1_0_gets_an_answer_that_ends_with_the_connection(
    gateway: Gateway, echo: list[bytes]
) -> None:
    answer = await exchange(gateway, post().replace(b"HTTP/1.1", b"HTTP/1.0"), ends=False)
    assert b"connection: close" in answer
    assert answer.endswith(b"}}")
    assert len(echo) == 1


@pytest.mark.parametrize("sent", [b"", b"POST", POST + KEY, post()[:-5]])
async def test_who_does_not_go_on_is_dropped(
    gateway: Gateway, echo: list[bytes], sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUEST_S", "BODY_S", "IDLE_S"):
        monkeypatch.setattr(http_connection, name, 0.05)
    with suppress(ConnectionResetError):
        assert await exchange(gateway, sent, ends=False) == b""
    assert not gateway.connections
    assert echo == []


async def test_a_caller_that_does_not_read_holds_the_engine_back_and_then_goes(
    gateway: Gateway, run_app: RunApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal written
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        event = json.dumps({"choices": [{"delta": {"content": "x" * 50_000}}]})
        while True:
            await answer.write(f"data: {event}\n\n".encode())
            written += 50_000

    gateway.table = table(await run_app(flood))
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        caller.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(caller, ADDRESSES[id(gateway)])
        await loop.sock_sendall(caller, post(b'{"model": "chat", "stream": true}'))
        await until(lambda: written > 0)
        before = -1
        while before != written:  # until the engine is held back
            before = written
            await asyncio.sleep(0.3)
        assert written < 64 << 20
        monkeypatch.setattr(relay, "SILENCE_S", 0.1)
        await until(lambda: not gateway.relays)
    (call,) = recorded(gateway)
    assert call.status == relay.GONE


async def test_a_connection_that_the_replica_has_closed_is_not_the_callers_trouble(
    gateway: Gateway,
) -> None:
    """It answers one request per connection, and says nothing of that."""
    answered: list[Any] = []
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"

    class Once(asyncio.Protocol):
        """Answers one request; the next one finds the connection broken."""

        has_answered = False

        @override
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        @override
        def data_received(self, data: bytes) -> None:
            if self.has_answered:
                self.transport.abort()
            elif data.endswith(b"}"):
                self.has_answered = True
                answered.append(1)
                self.transport.write(head + b"{}")

    loop = asyncio.get_running_loop()
    server = await loop.create_server(Once, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    gateway.table = table(f"http://{host}:{port}")
    answer = await exchange(gateway, *[post()] * 6)
    assert answer.count(b"HTTP/1.1 200 OK") == 7
    assert len(answered) == 6
    server.close()


async def test_an_offer_of_another_protocol_is_ignored(gateway: Gateway, echo: list[bytes]) -> None:
    """Java's HTTP client offers h2c with each request."""
    offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAA\r\n"
    sent = post(BODY, offer)
    for pieces in ([sent], [sent[:90], sent[90:-9], sent[-9:]], [sent, sent]):
        answer = await exchange(gateway, *pieces)
        whole = answer.count(b"HTTP/1.1 200 OK") - 1
        assert whole == b"".join(pieces).count(b"POST ")
        assert b"400" not in answer
    assert all(json.loads(one)["model"] == "chat" for one in echo)


async def test_a_caller_that_asks_and_does_not_read_is_not_read_on(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        caller.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(caller, ADDRESSES[id(gateway)])
        asked = b"GET /metrics HTTP/1.1\r\nhost: g\r\n\r\n" * 20_000
        sending = asyncio.ensure_future(loop.sock_sendall(caller, asked))
        await until(lambda: any(one._is_paused for one in gateway.connections))
        (connection,) = gateway.connections
        assert connection._transport.get_write_buffer_size() < 4 << 20
        monkeypatch.setattr(http_connection, "BODY_S", 0.05)
        await until(lambda: not gateway.connections)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_a_slow_reader_gets_the_whole_of_a_large_answer(
    gateway: Gateway, run_app: RunApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 8 << 20

    async def large(_: web.Request) -> web.Response:
        return web.json_response({"text": "x" * size})

    gateway.table = table(await run_app(large))
    monkeypatch.setattr(http_connection, "LINGER_S", 0.05)
    reader, writer = await asyncio.open_connection(*ADDRESSES[id(gateway)], limit=1 << 14)
    writer.write(post(BODY, b"connection: close\r\n"))
    received = 0
    while piece := await reader.read(1 << 18):
        received += len(piece)
        await asyncio.sleep(0.01)
    assert received > size
    writer.close()


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        ((b"HTTP/1.1 200 OK\r\nserv", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"), 200),
        ((b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",), 200),
        ((b"HTTP/1.1 200 OK\r\n\r\n{}",), 200),
        ((b"nothing",) * 3, 502),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}",) * 3, 502),
    ],
)
async def test_a_replica_that_answers_oddly_hangs_nobody(
    gateway: Gateway, answers: tuple[bytes, ...], status: int
) -> None:
    """Each connection gets the next answer, and ends with it."""
    rest = list(answers)

    class Odd(asyncio.Protocol):
        @override
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        @override
        def data_received(self, data: bytes) -> None:
            if data.endswith(b"}"):
                self.transport.write(rest.pop(0))
                self.transport.close()

    server = await asyncio.get_running_loop().create_server(Odd, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    gateway.table = table(f"http://{host}:{port}")
    answer = await exchange(gateway, post())
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert (rest, gateway.inflight, len(gateway.relays)) == ([], 0, 0)
    server.close()


async def test_a_second_answer_that_nobody_asked_for_goes_to_nobody(gateway: Gateway) -> None:
    asked = 0

    class Twice(asyncio.Protocol):
        @override
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        @override
        def data_received(self, data: bytes) -> None:
            nonlocal asked
            if data.endswith(b"}"):
                asked += 1
                body = b"%d" % asked
                one = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
                self.transport.write(one * 2)

    server = await asyncio.get_running_loop().create_server(Twice, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    gateway.table = table(f"http://{host}:{port}")
    for number in range(1, 5):
        answer = await exchange(gateway, post())
        assert b"\r\n\r\n%dHTTP" % number in answer
    server.close()


async def test_a_key_that_ends_while_a_body_is_on_its_way_is_refused(
    gateway: Gateway, echo: list[bytes]
) -> None:
    reader, writer = await asyncio.open_connection(*ADDRESSES[id(gateway)])
    writer.write(post()[:-5])
    await until(lambda: any(one._in_body for one in gateway.connections))
    keys = tuple(key for key in gateway.table.keys if key.id != "mine")
    gateway.table = replace(gateway.table, keys=keys)
    writer.write(post()[-5:])
    assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    writer.close()
    assert echo == []
