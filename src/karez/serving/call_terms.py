"""How a request wants to be answered: by when, at what cost, how urgently, by whom else. Pure.

Terms come as headers, or as fields that OpenAI's and OpenRouter's APIs have for them.
"""

import math
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from karez.core.call_limits import CALL_CLASSES, CallClass
from karez.core.prices import NANO, PERCENT, Price, cost_nano
from karez.core.routing import GatewayKey
from karez.core.services import MAX_FALLBACKS, MAX_WAIT_S, MIN_WAIT_S
from karez.serving.answers import Refusal

INVALID = "invalid_request_error"
TIMEOUT, COST, PRIORITY, HEDGE, SESSION = (
    b"x-karez-timeout-ms",
    b"x-karez-max-cost",
    b"x-karez-priority",
    b"x-karez-hedge-ms",
    b"x-session-id",
)
MAX_TIMEOUT_S, MAX_COST, MAX_SESSION = 86_400.0, 1e6, 256
_FLEX = "flex"
"""OpenAI's `service_tier` of requests that may take longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTerms:
    """How one request wants to be answered."""

    deadline_s: float | None = None
    """Seconds within which its answer has to be whole."""
    max_cost_nano: int | None = None
    """Most that it may cost, in billionths of the currency."""
    session: str = ""
    """Requests of one session go to one replica, as long as that is not much busier."""
    priority: CallClass = CallClass.ONLINE
    fallbacks: tuple[str, ...] | None = None
    """Models that may answer instead; None: those that the service names."""
    hedge_s: float | None = None
    """Seconds after which another replica is asked too; None: as the service says."""


NO_TERMS = CallTerms()


def terms_of(
    headers: Mapping[bytes, bytes], request: MutableMapping[str, Any], key: GatewayKey
) -> CallTerms:
    """Read the terms of a request, whose field `models` is taken out of it. Raises Refusal."""
    told = [name for name in (TIMEOUT, COST, PRIORITY, HEDGE, SESSION) if name in headers]
    models, cache_key = request.pop("models", None), request.get("prompt_cache_key")
    has_fields = models is not None or bool(cache_key)
    tier, first = request.get("service_tier"), key.calls.priority
    if not (told or has_fields or tier == _FLEX or first != CallClass.ONLINE):
        return NO_TERMS
    timeout_ms = _number(headers, TIMEOUT, 1.0, MAX_TIMEOUT_S * 1000)
    cost = _number(headers, COST, 0.0, MAX_COST)
    hedge_ms = _number(headers, HEDGE, MIN_WAIT_S * 1000, MAX_WAIT_S * 1000)
    asked = _class(headers, CallClass.NEAR_LINE if tier == _FLEX else CallClass.ONLINE)
    session = headers.get(SESSION, b"").decode("latin-1") or cache_key or ""
    return CallTerms(
        deadline_s=None if timeout_ms is None else timeout_ms / 1000,
        max_cost_nano=None if cost is None else int(cost * NANO),
        session=session[:MAX_SESSION] if isinstance(session, str) else "",
        priority=max(asked, first, key=CALL_CLASSES.index),
        fallbacks=None if models is None else _names(models, request["model"]),
        hedge_s=None if hedge_ms is None else hedge_ms / 1000,
    )


def _number(headers: Mapping[bytes, bytes], name: bytes, low: float, high: float) -> float | None:
    text = headers.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        message = f"{name.decode()} should be a number from {low:g} to {high:g}."
        raise Refusal(400, INVALID, message)
    return value


def _class(headers: Mapping[bytes, bytes], otherwise: CallClass) -> CallClass:
    text = headers.get(PRIORITY)
    if text is None:
        return otherwise
    try:
        return CallClass(text.decode("latin-1").strip().lower())
    except ValueError:
        message = f"{PRIORITY.decode()} should be one of {', '.join(CALL_CLASSES)}."
        raise Refusal(400, INVALID, message) from None


def _names(models: object, model: str) -> tuple[str, ...]:
    is_right = isinstance(models, list) and all(isinstance(name, str) for name in models)
    if not isinstance(models, list) or not is_right or len(models) > MAX_FALLBACKS:
        message = f"models should be up to {MAX_FALLBACKS} names of models that may answer instead."
        raise Refusal(400, INVALID, message)
    return tuple(dict.fromkeys(name for name in models if name != model))


def tokens_within(price: Price, max_cost_nano: int, *, at: float, prompt_tokens: int) -> int | None:
    """Tokens of answers that a cost allows for, beside the prompt; None: any number.

    Args:
        price: Of the model.
        max_cost_nano: Most that all may cost, in billionths of the currency.
        at: When the call begins, in UTC epoch seconds.
        prompt_tokens: Of the prompt, none of which is taken to be cached.
    """
    prompt = cost_nano(
        price, at=at, prompt_tokens=prompt_tokens, cached_tokens=0, completion_tokens=0
    )
    if prompt > max_cost_nano:
        return 0
    rate = price.completion * price.percent_at(at)
    return (max_cost_nano - prompt) * 1000 * PERCENT // rate if rate else None
