"""HTTP answers as typed values or errors."""

from typing import Any, TypeVar

import httpx

from karez.client.calls import Call
from karez.core.codec import from_json
from karez.core.errors import Remote

T = TypeVar("T")


def request_of(call: Call[Any], key: str) -> dict[str, Any]:
    """Arguments for httpx."""
    headers = {"authorization": f"Bearer {key}"}
    if call.once:
        headers["idempotency-key"] = call.once
    params = {name: value for name, value in call.params.items() if value not in (None, [])}
    shown = {k: str(v).lower() if isinstance(v, bool) else v for k, v in params.items()}
    return {"params": shown, "json": call.body, "headers": headers}


def may_repeat(call: Call[Any]) -> bool:
    """Whether sending it again after a lost connection is harmless."""
    return call.method == "GET" or bool(call.once)


def read(call: Call[T], answer: httpx.Response) -> T:
    """The typed answer. Raises Remote with the API's own words."""
    if answer.is_error:
        raise error_of(answer)
    if call.answer is None:
        return None  # type: ignore[return-value]  # T is None here
    if call.answer is bytes:
        return answer.content  # type: ignore[return-value]  # T is bytes here
    value: T = from_json(call.answer, answer.json())
    return value


def error_of(answer: httpx.Response) -> Remote:
    """The problem that the API described."""
    try:
        body = answer.json()
    except ValueError:
        body = {}
    return Remote(
        kind=str(body.get("code", "http")),
        http_status=answer.status_code,
        problem=str(body.get("title", f"The API answered {answer.status_code}.")),
        fix=str(body.get("hint", "")),
    )
