"""Errors as problem+json (RFC 9457)."""

from fastapi.responses import JSONResponse

from karez.core.errors import KarezError, TooManyRequests

MEDIA_TYPE = "application/problem+json"


def problem_response(error: KarezError, *, is_last: bool = False) -> JSONResponse:
    """An error as a response; `is_last` closes the connection, whose body was not read."""
    body = {
        "type": f"https://karez.dev/errors/{error.code}",
        "title": error.what(),
        "status": error.status,
        "code": error.code,
        "hint": error.hint(),
        "fields": error.facts(),
    }
    headers = {"connection": "close"} if is_last else {}
    if isinstance(error, TooManyRequests):
        headers["retry-after"] = str(error.retry_after_s)
    return JSONResponse(body, error.status, media_type=MEDIA_TYPE, headers=headers)
