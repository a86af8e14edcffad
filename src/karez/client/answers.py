"""Convert calls to HTTP requests, and HTTP responses to typed values or errors."""

from typing import Any, TypeVar

import httpx

from karez.client.calls import Call
from karez.core.codec import from_json
from karez.core.errors import KarezError, Remote, error_from

T = TypeVar("T")


def request_of(call: Call[Any], key: str) -> dict[str, Any]:
    """Build the keyword arguments of `httpx.Client.request` for a call."""
    headers = {"authorization": f"Bearer {key}"}
    if call.once:
        headers["idempotency-key"] = call.once
    params = {name: value for name, value in call.params.items() if value not in (None, [])}
    query = {k: str(v).lower() if isinstance(v, bool) else v for k, v in params.items()}
    if call.content is not None:
        held = call.content
        size = len(held) if isinstance(held, bytes) else held.stat().st_size
        headers["content-length"] = str(size)
        return {"params": query, "headers": headers}
    return {"params": query, "json": call.body, "headers": headers}


def may_repeat(call: Call[Any]) -> bool:
    """Whether a call may be sent again after a lost connection."""
    return call.method == "GET" or bool(call.once)


def read(call: Call[T], answer: httpx.Response) -> T:
    """Parse a response. Raises the error that the API sent, or Remote if unreadable."""
    if answer.is_error:
        raise error_of(answer)
    if call.answer is None:
        return None  # type: ignore[return-value]  # T is None here
    if call.answer is bytes:
        return answer.content  # type: ignore[return-value]  # T is bytes here
    try:
        value: T = from_json(call.answer, answer.json())
    except ValueError as error:
        raise Remote(
            kind="unreadable",
            http_status=answer.status_code,
            problem=f"The answer to {call.method} {call.path} cannot be read: {error}.",
            fix="Check that KAREZ_URL is a karez of this version; `karez --version` shows it.",
        ) from error
    return value


def error_of(answer: httpx.Response) -> KarezError:
    """Rebuild the error that the API sent; Remote where this version does not know the error."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        body = {}
    code, facts = str(body.get("code", "http")), body.get("fields")
    error = error_from(code, facts) if isinstance(facts, dict) else None
    return error or Remote(
        kind=code,
        http_status=answer.status_code,
        problem=str(body.get("title", f"The API answered {answer.status_code}.")),
        fix=str(body.get("hint", "")),
    )
