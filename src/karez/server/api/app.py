"""The API as an ASGI application."""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

import karez
from karez.core.errors import BadRequest, KarezError, TooManyRequests
from karez.core.metrics import API_TIME
from karez.core.names import printable
from karez.core.usage import AuditRow
from karez.server.api import (
    access,
    alerts,
    artifacts,
    billing,
    faults,
    health,
    jobs,
    node,
    openai_files,
    pool,
    services,
    tunnels,
    usage,
)
from karez.server.api.authorization import PUBLIC, UNGUARDED, roles
from karez.server.api.door import Door
from karez.server.api.problems import MEDIA_TYPE, is_openai, openai_error, problem_response
from karez.server.services.cloud import Cloud

PREFIX = "/api/v1"
ROUTERS = tuple(
    module.router
    for module in (
        health,
        jobs,
        tunnels,
        services,
        artifacts,
        openai_files,
        billing,
        pool,
        access,
        alerts,
        usage,
        node,
        faults,
    )
)
_IN_TUNNEL = re.compile(r"^/jobs/[^/]+/tunnels/[^/]+")
MAX_AUDIT = 2000
"""Characters of a field of the audit log that are kept."""
_Message = MutableMapping[str, Any]


def create_app(cloud: Cloud) -> FastAPI:
    """The API over given services. Raises AssertionError if a route names no role."""
    app = FastAPI(
        title="karez",
        version=karez.__version__,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.cloud = cloud
    named = roles(ROUTERS)
    unguarded = [route for route, role in named.items() if role == UNGUARDED]
    assert not unguarded, f"routes without a role: {unguarded}"
    for router in ROUTERS:
        app.include_router(router, prefix=PREFIX)
    app.add_exception_handler(KarezError, _karez_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ValueError, _value_error)
    public = frozenset(
        {f"{PREFIX}/openapi.json"}
        | {f"{PREFIX}{route.partition(' ')[2]}" for route, role in named.items() if role == PUBLIC}
    )
    app.add_middleware(Door, cloud=cloud, prefix=PREFIX, public=public)
    app.add_middleware(_Requests, cloud=cloud)
    return app


async def _karez_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, KarezError)
    return problem_response(error, request.url.path)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    text = str(first["msg"]).removeprefix("Value error, ")
    problem = BadRequest(problem=f"{place}: {text}" if place else text)
    return problem_response(problem, request.url.path)


async def _value_error(request: Request, error: Exception) -> JSONResponse:
    return problem_response(BadRequest(problem=str(error)), request.url.path)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if is_openai(request.url.path):
        return openai_error(error.status_code, str(error.detail), "http")
    body = {
        "type": "about:blank",
        "title": str(error.detail),
        "status": error.status_code,
        "code": "http",
        "hint": f"The API is described at {PREFIX}/openapi.json.",
    }
    return JSONResponse(body, error.status_code, media_type=MEDIA_TYPE)


class _Requests:
    """Pure ASGI: the time of every request, and a row for each that may change something.

    Requests without a valid key change nothing: they are counted, and have no rows.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], cloud: Cloud) -> None:
        self.app = app
        self.cloud = cloud

    async def __call__(self, scope: _Message, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope.setdefault("state", {})
        began_at, status = self.cloud.clock.now(), 500

        async def watch(message: _Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        try:
            if _is_audited(scope):
                with self.cloud.store.usage.auditing(lambda: self._row(scope, status)):
                    await self.app(scope, receive, watch)
            else:
                await self.app(scope, receive, watch)
        finally:
            self._observe(scope, status, self.cloud.clock.now() - began_at)

    def _observe(self, scope: _Message, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none").removeprefix(PREFIX)
        labels = {"method": scope["method"], "route": route, "status": str(status)}
        self.cloud.metrics.observe(API_TIME, seconds, **labels)

    def _row(self, scope: _Message, status: int) -> AuditRow | None:
        """What is known of a request; None of one that the door refused, which changes nothing."""
        if "actor" not in scope["state"] or status == TooManyRequests.status:
            return None
        path = scope["path"].removeprefix(PREFIX)
        return AuditRow(
            id=0,
            at=self.cloud.clock.now(),
            actor=printable(str(scope["state"]["actor"]), limit=MAX_AUDIT),
            action=printable(f"{scope['method']} {path}", limit=MAX_AUDIT),
            subject=printable(path.rsplit("/", 1)[-1], limit=MAX_AUDIT),
            outcome=str(status),
            detail=printable(str(scope["state"].get("detail", "")), limit=MAX_AUDIT),
        )


def _is_audited(scope: _Message) -> bool:
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return False
    path = scope["path"].removeprefix(PREFIX)
    if path.startswith(("/node/", "/gateway/")):
        return False  # the cloud's own traffic; its effects are recorded where they belong
    # not each stroke of a key: that a tunnel was opened, and by whom, is recorded
    return not _IN_TUNNEL.search(path) or scope["method"] == "DELETE"
