"""The OpenAI-compatible data plane: checks the key, picks a replica, passes bytes, counts tokens.

Raw ASGI over aiohttp's client. It parses only what it routes on and the usage it bills by.
"""

import asyncio
import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from karez.core.ports import Clock
from karez.core.routing import GatewayKey, Route, ServiceLoad, Table
from karez.core.usage import Call
from karez.serving.answer_relay import TokenUsage, relay_answer
from karez.serving.asgi import (
    Receive,
    Refusal,
    Scope,
    Send,
    read_body,
    send_json,
    send_refusal,
    send_text,
    until_gone,
)
from karez.serving.usage_spool import UsageSpool

GONE = 499
"""Status of a call whose caller hung up; nginx's name for it is "client closed request"."""
QUEUED_PER_SLOT = 8
"""Requests that may wait for each that is answered: about as many answers long is the wait."""
MAX_RETRY_S = 60
TRIES = 3
"""Attempts to reach a replica before a request is refused."""
PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})


@dataclass(slots=True, kw_only=True)
class _Completion:
    """One request on its way to a replica."""

    route: Route
    path: str
    data: bytes
    wants_usage: bool
    """Whether the caller asked for usage in a stream."""
    usage: TokenUsage = field(default_factory=TokenUsage)


@dataclass(slots=True)
class _Queue:
    """The requests of one service."""

    inflight: int = 0
    refused: int = 0
    answer_s: float = 1.0
    """How long an answer takes, on average of late."""

    def saw(self, seconds: float) -> None:
        """Take in how long an answer took."""
        self.answer_s += (seconds - self.answer_s) / 8


class _Unreached(Exception):
    """A replica could not be connected to."""


@dataclass(slots=True, kw_only=True)
class Gateway:
    """The ASGI application."""

    spool: UsageSpool
    clock: Clock
    check: Callable[[str, Table], GatewayKey | None]
    """Finds the valid key of an Authorization header's text."""
    engine_key: str
    table: Table = field(default_factory=Table)
    inflight: dict[str, int] = field(default_factory=dict)
    queues: dict[tuple[str, str], _Queue] = field(default_factory=dict)
    """(project, service) -> its requests."""
    requests: int = 0
    session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            try:
                await self._http(scope, receive, send)
            except Refusal as refusal:
                await send_refusal(send, refusal)

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
            await send_json(send, 200, {"status": "ok", "services": len(self.table.routes)})
            return
        if path == "/metrics":
            await send_text(send, self._metrics())
            return
        key = self._key(scope)
        if path == "/v1/models" and method == "GET":
            rows = [_model(route) for route in self.table.visible(key)]
            await send_json(send, 200, {"object": "list", "data": rows})
            return
        if path not in PATHS:
            raise Refusal(404, "not_found_error", f"The gateway has no {path}; see /v1/models.")
        if method != "POST":
            raise Refusal(405, "invalid_request_error", f"{path} takes POST.")
        await self._complete(key, path, await read_body(receive), (receive, send))

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

    async def _complete(
        self, key: GatewayKey, path: str, body: bytes, caller: tuple[Receive, Send]
    ) -> None:
        request = _parse(body)
        route = self._route(key, request)
        request["model"] = route.service  # the engine knows no projects
        options = request.get("stream_options") or {}
        if request.get("stream"):
            request["stream_options"] = {**options, "include_usage": True}
        completion = _Completion(
            route=route,
            path=path,
            data=orjson.dumps(request),
            wants_usage=bool(options.get("include_usage")),
        )
        queue = self._queue(route)
        self._refuse_if_full(route, queue)
        started, status = self.clock.now(), 502
        queue.inflight += 1
        try:
            status = await self._forward_while_heard(completion, *caller)
        finally:
            queue.inflight -= 1
            queue.saw(self.clock.now() - started)
            self.requests += 1
            self._record(completion, key, started, status)

    async def _forward_while_heard(
        self, completion: _Completion, receive: Receive, send: Send
    ) -> int:
        """Forward a request until it is answered, or its caller has hung up."""
        forwarding = asyncio.ensure_future(self._forward(completion, send))
        gone = asyncio.ensure_future(until_gone(receive))
        try:
            await asyncio.wait({forwarding, gone}, return_when=asyncio.FIRST_COMPLETED)
            return forwarding.result() if forwarding.done() else GONE
        finally:
            for task in (forwarding, gone):  # what runs closes its connection to the replica
                task.cancel()
            await asyncio.gather(forwarding, gone, return_exceptions=True)

    def _queue(self, route: Route) -> _Queue:
        return self.queues.setdefault((route.project, route.service), _Queue())

    def _refuse_if_full(self, route: Route, queue: _Queue) -> None:
        if queue.inflight < route.slots * (1 + QUEUED_PER_SLOT):
            return
        queue.refused += 1
        retry_s = math.ceil(queue.answer_s * queue.inflight / route.slots)
        message = (
            f"{route.service!r} answers {route.slots} requests at once, and "
            f"{queue.inflight - route.slots} wait already; try again later."
        )
        raise Refusal(429, "rate_limit_error", message, max(1, min(MAX_RETRY_S, retry_s)))

    def load(self) -> list[ServiceLoad]:
        """The requests of each service that is called."""
        return [
            ServiceLoad(
                service=route.service,
                project=route.project,
                inflight=queue.inflight,
                slots=route.slots,
                refused=queue.refused,
            )
            for route in self.table.routes
            if (queue := self.queues.get((route.project, route.service))) is not None
        ]

    def _record(
        self, completion: _Completion, key: GatewayKey, started: float, status: int
    ) -> None:
        self.spool.add(
            Call(
                id=f"call-{secrets.token_hex(10)}",
                at=started,
                project=completion.route.project,
                key_id=key.id,
                service=completion.route.service,
                prompt_tokens=completion.usage.prompt,
                completion_tokens=completion.usage.completion,
                status=status,
                duration_s=self.clock.now() - started,
            )
        )

    def _route(self, key: GatewayKey, request: Mapping[str, Any]) -> Route:
        model = request.get("model")
        found = self.table.named(key, str(model))
        if not found:
            visible = self.table.visible(key)
            names = ", ".join(sorted(route.service for route in visible)) or "none"
            message = f"There is no model {model!r} that this key may call; there are: {names}."
            raise Refusal(404, "not_found_error", message)
        if len(found) > 1:
            names = ", ".join(sorted(route.full_name for route in found))
            message = f"Several projects have a model {model!r}; name one of: {names}."
            raise Refusal(409, "invalid_request_error", message)
        (route,) = found
        if not route.urls:
            message = f"No replica of {model!r} is ready; `karez services show {model}` says why."
            raise Refusal(503, "service_unavailable_error", message)
        return route

    async def _forward(self, completion: _Completion, send: Send) -> int:
        """Send a request to the least busy replica, or to the next one that can be reached."""
        route = completion.route
        order = sorted(route.urls, key=lambda url: (self.inflight.get(url, 0), url))
        trouble = ""
        for number in range(TRIES):
            url = order[number % len(order)]
            self.inflight[url] = self.inflight.get(url, 0) + 1
            try:
                return await self._try(url, completion, send)
            except _Unreached as error:
                trouble = str(error)  # the caller has seen nothing: the next replica may answer
                await asyncio.sleep(0.05 * number)
            finally:
                self.inflight[url] -= 1
        message = f"No replica of {route.service!r} answered ({trouble}); try again in a moment."
        raise Refusal(502, "api_connection_error", message)

    async def _try(self, url: str, completion: _Completion, send: Send) -> int:
        assert self.session is not None
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.engine_key}"}
        try:
            answer = await self.session.post(
                url + completion.path, data=completion.data, headers=headers
            )
        except aiohttp.ClientConnectionError as error:
            raise _Unreached(type(error).__name__) from error
        async with answer:
            await relay_answer(answer, send, completion.usage, completion.wants_usage)
        return int(answer.status)

    def _metrics(self) -> bytes:
        busy = sum(self.inflight.values())
        return (
            "# TYPE karez_gateway_requests_total counter\n"
            f"karez_gateway_requests_total {self.requests}\n"
            "# TYPE karez_gateway_inflight gauge\n"
            f"karez_gateway_inflight {busy}\n"
        ).encode()


def _parse(body: bytes) -> dict[str, Any]:
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "invalid_request_error", f"The body is invalid JSON: {error}.") from None
    if not isinstance(request, dict) or not isinstance(request.get("model"), str):
        raise Refusal(400, "invalid_request_error", "The body should be an object with a model.")
    options = request.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise Refusal(400, "invalid_request_error", "stream_options should be an object.")
    return request


def _model(route: Route) -> dict[str, Any]:
    created = int(route.since)
    return {"id": route.service, "object": "model", "created": created, "owned_by": route.project}
