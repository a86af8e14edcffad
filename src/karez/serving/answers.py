"""HTTP/1.1 answers of the gateway as bytes. Pure.

Refusals have the form of the API that was called: OpenAI's or Anthropic's.
"""

from dataclasses import dataclass
from functools import cache, lru_cache
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


@dataclass(eq=False)
class Refusal(Exception):
    """A request that the gateway answers itself, with an error."""

    status: int
    kind: str
    message: str
    retry_after_s: int = 0
    """When to try again; 0: the answer does not say."""
    may_go_elsewhere: bool = False
    """Whether another model may take the request."""


def revoked() -> Refusal:
    """What a caller is told whose key is not valid any more."""
    return Refusal(401, "authentication_error", "The API key was revoked or has expired.")


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


@lru_cache(maxsize=256)
def _first_lines(status: int, kind: bytes, closes: bool) -> bytes:
    close = b"connection: close\r\n" if closes else b""
    return b"%scontent-type: %s\r\n%s" % (_status_line(status), kind, close)


def head(status: int, kind: bytes, headers: bytes, *, closes: bool) -> bytes:
    """The status line and the headers of an answer, without what ends them."""
    return _first_lines(status, kind, closes) + headers


def whole(status: int, kind: bytes, data: bytes, headers: bytes = b"", *, closes: bool) -> bytes:
    """A whole answer; each of the headers ends with a line break."""
    first = _first_lines(status, kind, closes)
    return b"%s%scontent-length: %d\r\n\r\n%s" % (first, headers, len(data), data)


def refused(refusal: Refusal, path: str, *, closes: bool) -> bytes:
    """A refusal as a whole answer."""
    after = b"retry-after: %d\r\n" % refusal.retry_after_s if refusal.retry_after_s else b""
    data = orjson.dumps(problem(refusal, path))
    return whole(refusal.status, JSON, data, after, closes=closes)


def chunk(data: bytes) -> bytes:
    """A piece of an answer whose length is not known yet (RFC 9112, section 7.1)."""
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
