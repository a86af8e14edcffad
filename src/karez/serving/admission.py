"""Which key may call which model, and whether another request fits into its queue. Pure."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from karez.core.routing import GatewayKey, Route, ServiceLoad, Table
from karez.serving.answers import Refusal

QUEUED_PER_SLOT = 8
"""Requests that may wait for each that is answered: about as many answers long is the wait."""
MAX_RETRY_S = 60
MAX_REMEMBERED = 4096
INVALID = "invalid_request_error"
POSTS = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/messages",
        "/v1/rerank",
        "/v1/responses",
    }
)
"""Paths whose requests go to a replica; an engine without one of them says so itself."""


@dataclass(slots=True)
class Queue:
    """The requests of one service."""

    inflight: int = 0
    refused: int = 0
    answer_s: float = 1.0
    """How long an answer takes, on average of late."""

    def saw(self, seconds: float) -> None:
        """Take in how long an answer took."""
        self.answer_s += (seconds - self.answer_s) / 8


@dataclass(slots=True, kw_only=True)
class Admission:
    """The keys, the routes and the queues of a gateway."""

    find_key: Callable[[str, Table], GatewayKey | None]
    """Finds the valid key of a text."""
    _table: Table = field(default_factory=Table)
    _keys: dict[bytes, GatewayKey] = field(default_factory=dict)
    """What callers sent -> their key, which is valid as long as the table."""
    queues: dict[tuple[str, str], Queue] = field(default_factory=dict)
    """(project, service) -> its requests."""

    @property
    def table(self) -> Table:
        """The keys and routes of now."""
        return self._table

    @table.setter
    def table(self, table: Table) -> None:
        self._table = table
        self._keys.clear()

    def key(self, headers: Mapping[bytes, bytes]) -> GatewayKey:
        """The key of a request. Raises Refusal."""
        sent = headers.get(b"authorization") or headers.get(b"x-api-key", b"")
        known = self._keys.get(sent)
        if known is not None:
            return known
        scheme, _, text = sent.decode("latin-1").rpartition(" ")
        is_bearer = scheme.strip().lower() == "bearer" if b"authorization" in headers else True
        key = self.find_key(text.strip(), self._table) if is_bearer else None
        if key is None:
            message = (
                "The API key is missing, unknown or revoked: send Authorization: Bearer kz_..."
            )
            raise Refusal(401, "authentication_error", message)
        if len(self._keys) >= MAX_REMEMBERED:
            self._keys.clear()
        self._keys[sent] = key
        return key

    def route(self, key: GatewayKey, model: object) -> Route:
        """The service that a key means by a model. Raises Refusal."""
        found = self._table.named(key, str(model))
        if not found:
            visible = self._table.visible(key)
            names = ", ".join(sorted(route.service for route in visible)) or "none"
            message = f"There is no model {model!r} that this key may call; there are: {names}."
            raise Refusal(404, "not_found_error", message)
        if len(found) > 1:
            names = ", ".join(sorted(route.full_name for route in found))
            message = f"Several projects have a model {model!r}; name one of: {names}."
            raise Refusal(409, INVALID, message)
        (route,) = found
        if not route.urls:
            message = f"No replica of {model!r} is ready; `karez services show {model}` says why."
            raise Refusal(503, "service_unavailable_error", message)
        return route

    def queue(self, route: Route) -> Queue:
        """The queue of a service. Raises Refusal if no more may wait in it."""
        queue = self.queues.setdefault((route.project, route.service), Queue())
        if queue.inflight < route.slots * (1 + QUEUED_PER_SLOT):
            return queue
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
            for route in self._table.routes
            if (queue := self.queues.get((route.project, route.service))) is not None
        ]


def parse(body: bytes | bytearray) -> dict[str, Any]:
    """Read the body of a request. Raises Refusal."""
    try:
        request = orjson.loads(body)
    except (orjson.JSONDecodeError, RecursionError) as error:
        raise Refusal(400, INVALID, f"The body is invalid JSON: {error}.") from None
    if not isinstance(request, dict) or not isinstance(request.get("model"), str):
        raise Refusal(400, INVALID, "The body should be an object with a model.")
    options = request.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise Refusal(400, INVALID, "stream_options should be an object.")
    return request
