"""A request for a model, and whether it can be answered in time and for its money. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from karez.core.engines import Task
from karez.core.guardrails import Guardrail
from karez.core.prices import NANO
from karez.core.routing import GatewayKey, Route
from karez.serving.answers import Refusal
from karez.serving.call_meter import NOTHING, Taken
from karez.serving.call_terms import INVALID, CallTerms, tokens_within
from karez.serving.service_queue import ServiceQueue

ANSWER_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "n_predict")
"""Fields of the APIs by which a request limits its answer."""
ANSWERS = ("n", "best_of")
"""Fields by which it asks for several."""
MAX_ANSWERS = 1024
MAX_RETRY_S = 60
RESPONSES = "/v1/responses"
"""Path of OpenAI's newer API, which has another name for the limit of an answer."""


@dataclass(slots=True, kw_only=True, eq=False)
class ModelCall:
    """A request for a model."""

    key: GatewayKey
    path: str
    route: Route
    """To the model that it names."""
    body: Mapping[str, Any]
    size: int
    """Bytes of the body."""
    terms: CallTerms
    at: float
    """When it came, by the clock."""
    asked: str
    """The model that it names."""
    address: str = ""
    """Where it comes from."""
    taken: Taken = NOTHING
    """Of its limits, so far."""
    is_tool_call: bool = False
    """Whether its answer is to be given the form of a call."""
    found: Sequence[Guardrail] = ()
    """Guardrails that found something in it."""

    @property
    def answer_tokens(self) -> int | None:
        """Tokens that each of its answers may have; None: it does not say."""
        return next((n for name in ANSWER_LIMITS if (n := _count(self.body.get(name)))), None)

    @property
    def answers(self) -> int:
        """How many answers are computed for it."""
        return max(1, *(min(_count(self.body.get(name)), MAX_ANSWERS) for name in ANSWERS))


def full(route: Route, queue: ServiceQueue, terms: CallTerms) -> Refusal:
    """What a caller is told whose request has no place in a queue."""
    waiting = max(queue.waiting(terms.priority), queue.demand - queue.slots)
    message = (
        f"{route.service!r} answers {queue.slots} requests at once, and {waiting} wait already; "
        "try again later."
    )
    retry_s = min(MAX_RETRY_S, queue.retry_s(terms.priority))
    return Refusal(429, "rate_limit_error", message, retry_s, may_go_elsewhere=True)


def check_deadline(call: ModelCall, queue: ServiceQueue, route: Route, deadline_s: float) -> None:
    """Refuse what would not be answered in time. Raises Refusal."""
    expected_s = queue.expected_s(call.terms.priority, call.answer_tokens)
    if expected_s is not None and expected_s > deadline_s:
        message = (
            f"An answer of {route.service!r} would take about {expected_s:.1f} s now, and its "
            f"deadline is {deadline_s:g} s; ask for fewer tokens, or for another model."
        )
        raise Refusal(504, "timeout_error", message, may_go_elsewhere=True)


def answer_limit(call: ModelCall, queue: ServiceQueue, route: Route) -> int | None:
    """Most tokens that an answer may have by its cost, if it does not say. Raises Refusal."""
    prompt = math.ceil(call.size / queue.bytes_per_token)
    cap = call.terms.max_cost_nano or 0
    most = tokens_within(route.price, cap, at=call.at, prompt_tokens=prompt)
    if most is None or route.task != Task.GENERATE:
        is_too_much = most == 0
        most = None
    else:
        most //= call.answers
        is_too_much = most < (call.answer_tokens or 1)
    if is_too_much:
        message = (
            f"The answer may cost more than {cap / NANO:g}: about {prompt} tokens of the prompt "
            f"leave {most or 0} for each answer of {route.service!r}."
        )
        raise Refusal(402, "cost_limit_error", message, may_go_elsewhere=True)
    return None if call.answer_tokens else most


def _count(value: object) -> int:
    return value if type(value) is int and value > 0 else 0


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


def limit_field(path: str) -> str:
    """The field by which a request to a path limits its answer."""
    return "max_output_tokens" if path == RESPONSES else "max_tokens"


def model_row(route: Route) -> dict[str, Any]:
    """A model as /v1/models lists it."""
    created = int(route.since)
    return {"id": route.service, "object": "model", "created": created, "owned_by": route.project}
