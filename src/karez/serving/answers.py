"""HTTP/1.1 answers of the gateway as bytes. Pure.

Refusals have the form of the API that was called: OpenAI's or Anthropic's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any

import orjson

JSON = b"application/json"
ANTHROPIC_PATH = "/v1/messages"
ANTHROPIC_KINDS = {
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Source: https://docs.anthropic.com/en/api/errors; other types have OpenAI's names."""
Headers = Iterable[tuple[bytes, bytes]]


@dataclass(eq=False)
class Refusal(Exception):
    """A request that the gateway answers itself, with an error."""

    status: int
    kind: str
    message: str
    retry_after_s: int = 0
    """When to try again; 0: the answer does not say."""


def problem(refusal: Refusal, path: str) -> dict[str, Any]:
    """The JSON body of a refusal, as the API that a path belongs to has it."""
    if path == ANTHROPIC_PATH:
        kind = ANTHROPIC_KINDS.get(refusal.status, refusal.kind)
        return {"type": "error", "error": {"type": kind, "message": refusal.message}}
    error = {
        "message": refusal.message,
        "type": refusal.kind,
        "code": refusal.status,
        "param": None,
    }
    return {"error": error}


@cache
def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


def head(status: int, kind: bytes, headers: Headers, *, closes: bool) -> bytes:
    """The status line and the headers of an answer, without what ends them."""
    more = b"".join([b"%s: %s\r\n" % pair for pair in headers])
    close = b"connection: close\r\n" if closes else b""
    return b"%scontent-type: %s\r\n%s%s" % (_status_line(status), kind, more, close)


def whole(status: int, kind: bytes, data: bytes, headers: Headers = (), *, closes: bool) -> bytes:
    """A whole answer."""
    first = head(status, kind, headers, closes=closes)
    return b"%scontent-length: %d\r\n\r\n%s" % (first, len(data), data)


def refused(refusal: Refusal, path: str, *, closes: bool) -> bytes:
    """A refusal as a whole answer."""
    after = ((b"retry-after", b"%d" % refusal.retry_after_s),) if refusal.retry_after_s else ()
    data = orjson.dumps(problem(refusal, path))
    return whole(refusal.status, JSON, data, after, closes=closes)


def chunk(data: bytes) -> bytes:
    """A piece of an answer whose length is not known yet (RFC 9112, section 7.1)."""
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
