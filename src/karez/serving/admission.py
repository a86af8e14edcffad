"""Which key may call which model, and whether another request fits into its queue. Pure."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from karez.core.engines import Task
from karez.core.identity import NO_CALL_LIMITS
from karez.core.routing import GatewayKey, Route, ServiceLoad, Table
from karez.serving.answers import Refusal
from karez.serving.call_meter import CallMeter, tokens_asked
from karez.serving.prefix_affinity import PrefixAffinity

QUEUED_PER_SLOT = 8
"""Requests that may wait for each that is answered: about as many answers long is the wait."""
MAX_RETRY_S = 60
MAX_REMEMBERED = 4096
INVALID = "invalid_request_error"
ANSWER_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "n_predict")
"""Fields of the APIs by which a request limits its answer."""
POSTS: Mapping[str, Task] = {
    "/v1/chat/completions": Task.GENERATE,
    "/v1/completions": Task.GENERATE,
    "/v1/embeddings": Task.EMBED,
    "/v1/messages": Task.GENERATE,
    "/v1/rerank": Task.RERANK,
    "/v1/responses": Task.GENERATE,
}
"""Paths whose requests go to a replica -> what they ask for."""


@dataclass(slots=True)
class Queue:
    """The requests of one service."""

    inflight: int = 0
    admitted: int = 0
    refused: int = 0
    answer_s: float = 1.0
    """How long an answer takes, on average of late."""
    affinity: PrefixAffinity = field(default_factory=PrefixAffinity)

    def saw(self, seconds: float) -> None:
        """Take in how long an answer took."""
        self.answer_s += (seconds - self.answer_s) / 8


class Admitted(NamedTuple):
    """What a request was found to be."""

    key: GatewayKey
    route: Route
    queue: Queue
    at: float
    """When, by the clock."""
    meter: CallMeter | None = None
    """Of a key with limits."""
    reserved: int = 0
    """Tokens that it may take, by the meter."""


@dataclass(slots=True, kw_only=True)
class Admission:
    """The keys, the routes and the queues of a gateway."""

    find_key: Callable[[str, Table], GatewayKey | None]
    """Finds the valid key of a text."""
    _table: Table = field(default_factory=Table)
    _keys: dict[bytes, GatewayKey] = field(default_factory=dict)
    """What callers sent -> their key, which is valid as long as the table."""
    _by_id: dict[str, GatewayKey] = field(default_factory=dict)
    _routes: dict[tuple[str, str], Route] = field(default_factory=dict)
    """(id of a key, model) -> what it means, as long as the table."""
    _meters: dict[str, CallMeter] = field(default_factory=dict)
    """Id of a key -> what it has asked for."""
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
        self._by_id = {key.id: key for key in table.keys}
        self._routes.clear()
        for route in table.routes:
            if (queue := self.queues.get(route.queue)) is not None:
                queue.affinity.keep_only(route.urls)
        limited = {key.id: key.calls for key in table.keys if key.calls != NO_CALL_LIMITS}
        self._meters = {id_: meter for id_, meter in self._meters.items() if id_ in limited}
        for id_, meter in self._meters.items():
            meter.limits = limited[id_]

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

    def current(self, key: GatewayKey) -> GatewayKey:
        """What a key is now: it may have changed while a body was read. Raises Refusal."""
        now = self._by_id.get(key.id)
        if now is None:
            raise Refusal(401, "authentication_error", "The API key was revoked or has expired.")
        return now

    def route(self, key: GatewayKey, model: str) -> Route:
        """The service that a key means by a model. Raises Refusal."""
        known = self._routes.get((key.id, model))
        return self._found(key, model) if known is None else known

    def _found(self, key: GatewayKey, model: str) -> Route:
        found = self._table.named(key, model)
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
        if len(self._routes) >= MAX_REMEMBERED:
            self._routes.clear()
        self._routes[key.id, model] = route
        return route

    def admit(
        self, key: GatewayKey, path: str, request: Mapping[str, Any], size: int, now: float
    ) -> Admitted:
        """Admit a request of so many bytes to the queue of its model. Raises Refusal."""
        route = self.route(key, request["model"])
        if route.task != POSTS[path]:
            raise Refusal(400, INVALID, _other_task(route, path))
        if route.stopped:
            raise Refusal(429, "insufficient_quota", route.stopped)
        queue = self._queue(route)
        if key.calls == NO_CALL_LIMITS:
            return Admitted(key, route, queue, now)
        meter = self._meters.get(key.id)
        if meter is None:
            meter = self._meters[key.id] = CallMeter(limits=key.calls)
        asked = next((request[name] for name in ANSWER_LIMITS if request.get(name)), None)
        tokens = tokens_asked(size, asked)
        wait_s = meter.take(tokens, now)
        if wait_s > 0:
            message = (
                f"The limit of this key is reached: {meter.limits.told}; "
                f"try again in {math.ceil(wait_s)} s."
            )
            raise Refusal(429, "rate_limit_error", message, math.ceil(wait_s))
        return Admitted(key, route, queue, now, meter, tokens)

    def _queue(self, route: Route) -> Queue:
        queue = self.queues.get(route.queue)
        if queue is None:
            queue = self.queues[route.queue] = Queue()
        slots = max(route.slots, route.parallel)  # while no replica is ready, requests wait for one
        if queue.inflight < slots * (1 + QUEUED_PER_SLOT):
            queue.admitted += 1
            return queue
        queue.refused += 1
        retry_s = math.ceil(queue.answer_s * queue.inflight / slots)
        message = (
            f"{route.service!r} answers {slots} requests at once, and "
            f"{queue.inflight - slots} wait already; try again later."
        )
        raise Refusal(429, "rate_limit_error", message, max(1, min(MAX_RETRY_S, retry_s)))

    def load(self) -> tuple[ServiceLoad, ...]:
        """The requests of each service."""
        return tuple(
            ServiceLoad(
                service=route.service,
                project=route.project,
                inflight=0 if queue is None else queue.inflight,
                slots=route.slots,
                refused=0 if queue is None else queue.refused,
                admitted=0 if queue is None else queue.admitted,
            )
            for route in self._table.routes
            if not route.base
            for queue in (self.queues.get(route.queue),)
        )

    def awaits_a_replica(self) -> bool:
        """Whether requests wait for a service that has none."""
        return any(
            not route.urls and queue.inflight
            for route in self._table.routes
            if (queue := self.queues.get(route.queue)) is not None
        )


def _other_task(route: Route, path: str) -> str:
    paths = " or ".join(sorted(one for one, task in POSTS.items() if task == route.task))
    return f"{route.service!r} does not answer {path}; it is for {route.task}: call {paths}."


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
