"""The HTTP of engines that have none: who is answered, and errors in OpenAI's form."""

import hmac
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from karez.engines.generation import BadField

HEALTH = "/health"
"""Whether it serves, which is told to anybody."""
MAX_BODY = 32 << 20
"""As of the gateway."""


class EngineFailed(RuntimeError):
    """The model could not compute an answer."""


def problem(status: int, message: str) -> dict[str, Any]:
    """The body of an error."""
    kind = "invalid_request_error" if status < 500 else "api_error"
    return {"error": {"message": message, "type": kind, "code": status, "param": None}}


async def read_body(request: web.Request) -> dict[str, Any]:
    """The body of a request. Raises BadField."""
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise BadField(f"the body is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadField("the body is an object")
    return body


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(key: str, alias: str, routes: Sequence[web.RouteDef]) -> web.Application:
    """An application that answers those who show the key, with errors in OpenAI's form."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        sent = request.headers.get("authorization", "").removeprefix("Bearer ")
        is_public = request.path == HEALTH
        if not is_public and not hmac.compare_digest(sent.encode(), key.encode()):
            return web.json_response(problem(401, "the key is not this engine's"), status=401)
        try:
            return await handler(request)
        except BadField as error:
            return web.json_response(problem(400, str(error)), status=400)
        except EngineFailed as error:
            return web.json_response(problem(500, str(error)), status=500)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            sys.stderr.write(f"{request.path}: {error!r}\n")
            return web.json_response(
                problem(500, "the engine failed with this request"), status=500
            )
        except web.HTTPException as error:
            status = error.status
            message = f"this engine has no {request.path}" if status == 404 else error.reason
            return web.json_response(problem(status, message), status=status)

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": alias, "object": "model"}]})

    app = web.Application(middlewares=[guard], client_max_size=MAX_BODY)
    app.add_routes([web.get(HEALTH, health), web.get("/v1/models", models), *routes])
    return app


async def serve(app: web.Application, address: str, port: int) -> web.AppRunner:
    """Begin to answer; whoever hangs up ends what computes for it."""
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    return runner
