"""Which key may call which model, and whether another request fits into its queue. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from karez.core.call_limits import CALL_CLASSES
from karez.core.engines import Task
from karez.core.routing import GatewayKey, Route, ServiceLoad, Table
from karez.serving.address_ranges import is_within
from karez.serving.answers import Refusal, revoked
from karez.serving.call_limiter import CallLimiter
from karez.serving.call_terms import INVALID
from karez.serving.model_call import ModelCall, answer_limit, check_deadline, full
from karez.serving.other_queues import QUEUE_CELLS, OtherQueues
from karez.serving.rows import OpenRows, own_rows
from karez.serving.service_queue import ServiceQueue

MAX_REMEMBERED = 4096
MAX_NAME = 100
"""Characters of a model's name that an error repeats."""
POSTS: Mapping[str, Task] = {
    "/v1/chat/completions": Task.GENERATE,
    "/v1/classify": Task.CLASSIFY,
    "/v1/completions": Task.GENERATE,
    "/v1/embeddings": Task.EMBED,
    "/v1/messages": Task.GENERATE,
    "/v1/rerank": Task.RERANK,
    "/v1/responses": Task.GENERATE,
}
"""Paths whose requests go to a replica -> what they ask for."""


class Admitted(NamedTuple):
    """What a request was found to be."""

    route: Route
    queue: ServiceQueue
    answer_tokens: int | None = None
    """Most that its answer may have, where it does not say; None: any number."""


Elsewhere = tuple[Admitted, Sequence[str]]
"""What a request was found to be, and the models that are left if that one does not answer."""


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
    open_rows: OpenRows = own_rows
    limiter: CallLimiter = field(init=False)
    queues: dict[tuple[str, str], ServiceQueue] = field(default_factory=dict)
    """(project, service) -> its requests."""

    def __post_init__(self) -> None:
        self.limiter = CallLimiter(self.open_rows)

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
        self.limiter.follow(table)
        for route in table.routes:
            if (queue := self.queues.get(route.queue)) is not None:
                queue.follow(route)

    @property
    def waiting(self) -> int:
        """Requests that wait for a replica."""
        queues = self.queues.values()
        return sum(queue.waiting(each) for queue in queues for each in CALL_CLASSES)

    def key(self, headers: Mapping[bytes, bytes], address: str) -> GatewayKey:
        """The key of a request that comes from an address. Raises Refusal."""
        sent = headers.get(b"authorization") or headers.get(b"x-api-key", b"")
        key = self._keys.get(sent) or self._find(sent, headers)
        if key.calls.addresses and not is_within(address, key.calls.addresses):
            message = (
                f"This key is for calls from {', '.join(key.calls.addresses)}, not from "
                f"{address or 'an unknown address'}."
            )
            raise Refusal(403, "permission_error", message)
        return key

    def _find(self, sent: bytes, headers: Mapping[bytes, bytes]) -> GatewayKey:
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
            raise revoked()
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
            named = repr(model[:MAX_NAME])
            message = f"There is no model {named} that this key may call; there are: {names}."
            raise Refusal(404, "not_found_error", message)
        if len(found) > 1:
            names = ", ".join(sorted(route.full_name for route in found))
            message = f"Several projects have a model {model[:MAX_NAME]!r}; name one of: {names}."
            raise Refusal(409, INVALID, message)
        (route,) = found
        if len(self._routes) >= MAX_REMEMBERED:
            self._routes.clear()
        self._routes[key.id, model] = route
        return route

    def admit(self, call: ModelCall, models: Sequence[str] = (), now: float = 0.0) -> Elsewhere:
        """Admit a request to the queue of its model, or of its first fallback that takes it.

        Args:
            call: The request.
            models: Those that are left of its fallbacks, if others were tried.
            now: When that is; a call that has just come is admitted as of then.

        Returns:
            What it was found to be, and the models that are left.

        Raises:
            Refusal: Of the first model; the others take it no more than that one.
        """
        trouble, now = None, max(now, call.at)
        if not models:
            models = self._fallbacks(call)
            try:
                return self._admit(call, call.route, call.at), models
            except Refusal as refusal:
                if not refusal.may_go_elsewhere:
                    raise
                trouble = refusal
        for number, model in enumerate(models, 1):
            try:
                route = self.route(call.key, model)
                return self._admit(call, route, now), models[number:]
            except Refusal as refusal:
                trouble = trouble or refusal
        assert trouble is not None
        raise trouble

    def _fallbacks(self, call: ModelCall) -> Sequence[str]:
        """Other models of the same project, whose guardrails and money they share."""
        route, told = call.route, call.terms.fallbacks
        names = route.fallbacks if told is None else told
        return [f"{route.project}/{name.removeprefix(f'{route.project}/')}" for name in names]

    def _admit(self, call: ModelCall, route: Route, now: float) -> Admitted:
        key, terms = call.key, call.terms
        if route.task != POSTS[call.path]:
            raise Refusal(400, INVALID, _other_task(route, call.path))
        if route.stopped:
            raise Refusal(429, "insufficient_quota", route.stopped)
        queue = self._queue(route)
        if not queue.has_place(terms.priority, key.id):
            queue.refused += 1
            raise full(route, queue, terms)
        if terms.deadline_s is not None:
            check_deadline(call, queue, route, terms.deadline_s - (now - call.at))
        limit = None if terms.max_cost_nano is None else answer_limit(call, queue, route)
        self.limiter.take(call, route)
        queue.admitted += 1
        return Admitted(route, queue, limit)

    def _queue(self, route: Route) -> ServiceQueue:
        queue = self.queues.get(route.queue)
        if queue is None:
            queue = self.queues[route.queue] = ServiceQueue(
                others=OtherQueues(self.open_rows(("queue", *route.queue), QUEUE_CELLS))
            )
            queue.follow(route)
        return queue

    def load(self) -> tuple[ServiceLoad, ...]:
        """The requests of each service."""
        return tuple(
            ServiceLoad(
                service=route.service,
                project=route.project,
                inflight=0 if queue is None else queue.demand,
                slots=route.slots,
                refused=0 if queue is None else queue.refused,
                admitted=0 if queue is None else queue.admitted,
                begun=0 if queue is None else queue.begun,
                late=0 if queue is None else queue.late,
            )
            for route in self._table.routes
            if not route.base
            for queue in (self.queues.get(route.queue),)
        )

    def look(self) -> None:
        """Send what other processes have left slots for."""
        for queue in self.queues.values():
            queue.look()

    def awaits_a_replica(self) -> bool:
        """Whether requests wait for a service that has none."""
        return any(
            not route.urls and queue.demand
            for route in self._table.routes
            if (queue := self.queues.get(route.queue)) is not None
        )


def _other_task(route: Route, path: str) -> str:
    paths = " or ".join(sorted(one for one, task in POSTS.items() if task == route.task))
    return f"{route.service!r} does not answer {path}; it is for {route.task}: call {paths}."
