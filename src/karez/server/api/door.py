"""The door of the API: what is checked of a request before anything else is done for it.

The key and the size are looked at first, then the body is read within a time, then it is checked
that its JSON can be kept. What goes past is a request that no service has to be afraid of.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Final

import anyio
import anyio.to_thread
from starlette.datastructures import Headers

from karez.core.errors import (
    BadRequest,
    KarezError,
    NotSignedIn,
    TooLarge,
    TooManyRequests,
    TooSlow,
)
from karez.core.identity import EVERYWHERE, Principal, Role, includes
from karez.core.plain_json import problem_with_json
from karez.core.rate_limit import RateLimit
from karez.server.api.problems import problem_response
from karez.server.services.cloud import Cloud

BODY_BYTES: Final = 1 << 20
"""Largest body of a request, where its path has no other limit."""
LARGE_BYTES: Final = 32 << 20
"""Largest list of an artifact's files, and of a gateway's calls."""
SMALL_BYTES: Final = 1 << 16
"""Bodies below are checked at once: to hand one to a thread takes longer."""
IDLE_S: Final = 30.0
"""Longest pause, in seconds, within a body."""
BODY_S: Final = 120.0
"""Longest time, in seconds, for a body that is read as a whole."""
STRANGERS_PER_S, HOLD_UP_S = 5.0, 0.5
"""Requests without a key that a host may send in a second, over ten seconds, before it is held up,
and for how long then."""
KEY_CHARACTERS: Final = 200
IN_FLIGHT: Final = 24
"""Requests of one project that are served at once, of 40 threads; more wait for their turn."""
_LARGE = re.compile(r"/(?:artifacts|gateway/calls)")
_STREAMED = re.compile(
    r"/(?:node/)?blobs/[0-9a-f]{64}|/jobs/[^/]+/tunnels/[^/]+/input|/openai/files"
)
"""Paths whose handlers read the body piece by piece, and limit it themselves."""
_OWN = frozenset({Role.NODE, Role.GATEWAY, Role.MONITOR})
"""Roles of parts of the cloud, which may ask as often as they need."""
_LOOKS = anyio.CapacityLimiter(16)
"""Threads that look keys up: not those that may wait for something else."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Door:
    """ASGI middleware: refuses what no route should see."""

    def __init__(self, app: App, *, cloud: Cloud, prefix: str, public: frozenset[str]) -> None:
        """Guard an application; `public` are paths, with the prefix, that need no key."""
        self._app, self._cloud = app, cloud
        self._prefix, self._public = prefix, public
        self._limit = RateLimit(rate=cloud.settings.requests_per_s)
        is_limited = cloud.settings.requests_per_s > 0
        self._strangers = RateLimit(rate=STRANGERS_PER_S if is_limited else 0.0)
        self._turns: dict[str, anyio.CapacityLimiter] = {}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer why it is refused."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            inner = await self._admit(scope, receive)
        except KarezError as error:
            await problem_response(error, scope["path"], is_last=True)(scope, receive, send)
            return
        async with self._turn(scope):
            await self._app(scope, inner, send)

    def _turn(self, scope: Message) -> AbstractAsyncContextManager[object]:
        """A turn of the caller's project, which has some at once: the threads are everybody's."""
        who: Principal | None = scope.get("state", {}).get("principal")
        if who is None or who.project == EVERYWHERE:
            return nullcontext()
        if who.project not in self._turns:
            self._turns[who.project] = anyio.CapacityLimiter(IN_FLIGHT)
        return self._turns[who.project]

    async def _admit(self, scope: Message, receive: Receive) -> Receive:
        headers = Headers(scope=scope)
        path = str(scope["path"]).removeprefix(self._prefix)
        _check_framing(headers)
        who = await self._sign_in(scope, headers)
        if who is None and scope["path"] not in self._public:
            await self._hold_up(scope)
            raise NotSignedIn
        if who is not None:
            self._count(who)
        if _STREAMED.fullmatch(path):
            return _Paced(receive)
        body = await _read_body(headers, receive, _limit(path, who))
        if problem := await _problem_with(body):
            raise BadRequest(problem=f"the body of this request is refused: {problem}")
        return _Replay(body, receive)

    async def _sign_in(self, scope: Message, headers: Headers) -> Principal | None:
        """The principal of a request's key, which is also put into its state."""
        scheme, _, text = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or len(text) > KEY_CHARACTERS:
            return None
        look = self._cloud.permissions.principal
        who = await anyio.to_thread.run_sync(look, text.strip(), limiter=_LOOKS)
        if who is not None:
            scope["state"]["principal"] = who
            scope["state"]["actor"] = f"{who.name} ({who.key_id})"
        return who

    async def _hold_up(self, scope: Message) -> None:
        """Let a host that asks again and again without a key wait for its answer."""
        host = (scope.get("client") or ("",))[0]
        if self._strangers.take(host, self._cloud.clock.now()):
            await anyio.sleep(HOLD_UP_S)

    def _count(self, who: Principal) -> None:
        """Count a request against its key. Raises TooManyRequests."""
        if who.role in _OWN:
            return
        wait_s = self._limit.take(who.key_id, self._cloud.clock.now())
        if wait_s:
            raise TooManyRequests(
                limit=f"{self._limit.rate:g} a second", retry_after_s=max(1, round(wait_s))
            )


def _limit(path: str, who: Principal | None) -> int:
    """Largest body that is read for whoever asks."""
    if who is None:
        return 0
    may_send = who.role in _OWN or includes(who.role, Role.MEMBER)
    return LARGE_BYTES if may_send and _LARGE.fullmatch(path) else BODY_BYTES


async def _problem_with(body: bytes) -> str:
    if len(body) < SMALL_BYTES:
        return problem_with_json(body) if body else ""
    return await anyio.to_thread.run_sync(problem_with_json, body, limiter=_LOOKS)


def _check_framing(headers: Headers) -> None:
    """Refuse a request that two readers could end at different places."""
    lengths = headers.getlist("content-length")
    is_chunked = "transfer-encoding" in headers
    if (is_chunked and lengths) or len(lengths) > 1 or not all(map(str.isdecimal, lengths)):
        raise BadRequest(
            problem="this request says in two ways where it ends",
            fix="Send either Content-Length, once, or Transfer-Encoding.",
        )


async def _read_body(headers: Headers, receive: Receive, limit_bytes: int) -> bytes:
    """The whole body. Raises TooLarge, TooSlow."""
    if int(headers.get("content-length", "0")) > limit_bytes:
        raise TooLarge(limit_bytes=limit_bytes)
    body = bytearray()
    with anyio.move_on_after(BODY_S) as reading:
        while True:
            message = await _next(receive)
            body += message.get("body", b"")
            if len(body) > limit_bytes:
                raise TooLarge(limit_bytes=limit_bytes)
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                break
    if reading.cancelled_caught:
        raise TooSlow(seconds=int(BODY_S))
    return bytes(body)


async def _next(receive: Receive) -> Message:
    with anyio.move_on_after(IDLE_S):
        return await receive()
    raise TooSlow(seconds=int(IDLE_S))


class _Paced:
    """Receives a body piece by piece; each has to come in time."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._is_over = receive, False

    async def __call__(self) -> Message:
        if self._is_over:  # then only the end of the connection is waited for
            return await self._receive()
        message = await _next(self._receive)
        self._is_over = not message.get("more_body")
        return message


class _Replay:
    """Receives a body that was read already, and then what follows."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}
