"""The OpenAI-compatible data plane: checks the key, picks a replica, passes bytes, counts tokens.

Raw ASGI over aiohttp's client. It parses only what it routes on and the usage it bills by.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from karez.core.ports import Clock
from karez.core.routing import GatewayKey, Route, Table
from karez.core.usage import Call
from karez.serving.usage_spool import UsageSpool

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_LIMIT_BYTES = 32 << 20
"""Largest request. vLLM and llama.cpp take more than any context needs; this stops abuse."""
TRIES = 3
"""Replicas tried before the first byte of an answer."""
PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})


@dataclass(eq=False)
class Refusal(Exception):
    """A request that is answered by the gateway itself."""

    status: int
    kind: str
    message: str


@dataclass(slots=True, kw_only=True)
class TokenUsage:
    """Tokens of one answer, as the engine reports them."""

    prompt: int = 0
    completion: int = 0

    def read(self, usage: object) -> bool:
        """Take over a `usage` object. False: it is none."""
        if not isinstance(usage, Mapping):
            return False
        self.prompt = int(usage.get("prompt_tokens") or 0)
        self.completion = int(usage.get("completion_tokens") or 0)
        return True


@dataclass(slots=True, kw_only=True)
class Gateway:
    """The ASGI application."""

    spool: UsageSpool
    clock: Clock
    check: Callable[[str, Table], GatewayKey | None]
    """The key of an Authorization header, if it is good."""
    engine_key: str
    table: Table = field(default_factory=Table)
    inflight: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            try:
                await self._http(scope, receive, send)
            except Refusal as refusal:
                await _answer(send, refusal.status, _problem(refusal))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                # llama.cpp closes idle connections after 5 s: let go of them before it does
                connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3)
                timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=600)
                self.session = aiohttp.ClientSession(connector=connector, timeout=timeout)
                await send({"type": "lifespan.startup.complete"})
            else:
                if self.session is not None:
                    await self.session.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if path == "/health":
            await _answer(send, 200, {"status": "ok", "services": len(self.table.routes)})
            return
        if path == "/metrics":
            await _text(send, self._metrics())
            return
        key = self._key(scope)
        if path == "/v1/models" and method == "GET":
            rows = [_model(route) for route in self.table.visible(key)]
            await _answer(send, 200, {"object": "list", "data": rows})
            return
        if path not in PATHS:
            raise Refusal(404, "not_found_error", f"The gateway has no {path}; see /v1/models.")
        if method != "POST":
            raise Refusal(405, "invalid_request_error", f"{path} takes POST.")
        await self._complete(key, path, await _body(receive), send)

    def _key(self, scope: Scope) -> GatewayKey:
        header = next((v for k, v in scope["headers"] if k == b"authorization"), b"")
        scheme, _, text = header.decode("latin-1").partition(" ")
        key = self.check(text.strip(), self.table) if scheme.lower() == "bearer" else None
        if key is None:
            message = (
                "The API key is missing, unknown or revoked: send Authorization: Bearer kz_..."
            )
            raise Refusal(401, "authentication_error", message)
        return key

    async def _complete(self, key: GatewayKey, path: str, body: bytes, send: Send) -> None:
        request = _parse(body)
        route = self._route(key, request)
        wants_usage = bool((request.get("stream_options") or {}).get("include_usage"))
        if request.get("stream"):
            options = {**(request.get("stream_options") or {}), "include_usage": True}
            request["stream_options"] = options
        data = orjson.dumps(request)
        started, counts = self.clock.now(), TokenUsage()
        status = 502
        try:
            status = await self._relay(route, path, data, send, counts, wants_usage)
        finally:
            self.requests += 1
            self.spool.add(
                Call(
                    id=f"call-{secrets.token_hex(10)}",
                    at=started,
                    project=route.project,
                    key_id=key.id,
                    service=route.service,
                    prompt_tokens=counts.prompt,
                    completion_tokens=counts.completion,
                    status=status,
                    duration_s=self.clock.now() - started,
                )
            )

    def _route(self, key: GatewayKey, request: Mapping[str, Any]) -> Route:
        model = request.get("model")
        visible = self.table.visible(key)
        route = next((route for route in visible if route.service == model), None)
        if route is None:
            names = ", ".join(sorted(route.service for route in visible)) or "none"
            message = f"There is no model {model!r} that this key may call; there are: {names}."
            raise Refusal(404, "not_found_error", message)
        if not route.urls:
            message = f"No replica of {model!r} is ready; `karez services show {model}` says why."
            raise Refusal(503, "service_unavailable_error", message)
        return route

    async def _relay(
        self,
        route: Route,
        path: str,
        data: bytes,
        send: Send,
        counts: TokenUsage,
        wants_usage: bool,
    ) -> int:
        assert self.session is not None
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.engine_key}"}
        order = sorted(route.urls, key=lambda url: (self.inflight.get(url, 0), url))
        trouble = ""
        for number in range(TRIES):
            url = order[number % len(order)]
            self.inflight[url] = self.inflight.get(url, 0) + 1
            try:
                try:
                    answer = await self.session.post(url + path, data=data, headers=headers)
                except aiohttp.ClientConnectionError as error:
                    trouble = type(error).__name__  # the caller has seen nothing: try the next
                    await asyncio.sleep(0.05 * number)
                    continue
                async with answer:
                    await _pass_on(answer, send, counts, wants_usage)
                return int(answer.status)
            finally:
                self.inflight[url] -= 1
        message = f"No replica of {route.service!r} answered ({trouble}); try again in a moment."
        raise Refusal(502, "api_connection_error", message)

    def _metrics(self) -> bytes:
        busy = sum(self.inflight.values())
        return (
            "# TYPE karez_gateway_requests_total counter\n"
            f"karez_gateway_requests_total {self.requests}\n"
            "# TYPE karez_gateway_inflight gauge\n"
            f"karez_gateway_inflight {busy}\n"
        ).encode()


async def _pass_on(
    answer: aiohttp.ClientResponse, send: Send, counts: TokenUsage, wants_usage: bool
) -> None:
    kind = answer.headers.get("content-type", "application/json")
    if not kind.startswith("text/event-stream"):
        data = await answer.read()
        if kind.startswith("application/json"):
            with contextlib.suppress(orjson.JSONDecodeError, AttributeError):  # nothing to count
                counts.read(orjson.loads(data).get("usage"))
        await _raw(send, int(answer.status), kind, data)
        return
    first = True
    async for line in answer.content:  # server-sent events: one line each, blank between
        if first:
            await _start(send, int(answer.status), kind)
            first = False
        out = _event(line, counts, wants_usage)
        if out:
            await send({"type": "http.response.body", "body": out, "more_body": True})
    if first:
        await _start(send, int(answer.status), kind)
    await send({"type": "http.response.body", "body": b""})


def _event(line: bytes, counts: TokenUsage, wants_usage: bool) -> bytes:
    """The line to pass on; empty for the usage event that the caller did not ask for."""
    if b'"usage"' not in line or not line.startswith(b"data:"):
        return line
    try:
        event = orjson.loads(line[5:])
    except orjson.JSONDecodeError:
        return line
    if counts.read(event.get("usage")) and not event.get("choices") and not wants_usage:
        return b""
    return line


def _parse(body: bytes) -> dict[str, Any]:
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "invalid_request_error", f"The body is no JSON: {error}.") from None
    if not isinstance(request, dict) or not isinstance(request.get("model"), str):
        raise Refusal(400, "invalid_request_error", "The body should be an object with a model.")
    options = request.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise Refusal(400, "invalid_request_error", "stream_options should be an object.")
    return request


async def _body(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "invalid_request_error", "The caller hung up.")
        part = message.get("body", b"")
        size += len(part)
        if size > BODY_LIMIT_BYTES:
            raise Refusal(
                413, "invalid_request_error", f"The body exceeds {BODY_LIMIT_BYTES} bytes."
            )
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


def _problem(refusal: Refusal) -> dict[str, Any]:
    error = {
        "message": refusal.message,
        "type": refusal.kind,
        "code": refusal.status,
        "param": None,
    }
    return {"error": error}


def _model(route: Route) -> dict[str, Any]:
    created = int(route.since)
    return {"id": route.service, "object": "model", "created": created, "owned_by": route.project}


async def _answer(send: Send, status: int, body: object) -> None:
    await _raw(send, status, "application/json", orjson.dumps(body))


async def _text(send: Send, body: bytes) -> None:
    await _raw(send, 200, "text/plain; version=0.0.4", body)


async def _raw(send: Send, status: int, kind: str, data: bytes) -> None:
    size = str(len(data)).encode()
    await _start(send, status, kind, (b"content-length", size))
    await send({"type": "http.response.body", "body": data})


async def _start(send: Send, status: int, kind: str, *more: tuple[bytes, bytes]) -> None:
    headers = [(b"content-type", kind.encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
