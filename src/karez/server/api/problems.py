"""Errors as problem+json (RFC 9457), and as OpenAI's clients read them."""

from http import HTTPStatus
from typing import Final

from fastapi.responses import JSONResponse

from karez.core.errors import KarezError, TooManyRequests

MEDIA_TYPE = "application/problem+json"
OPENAI: Final = "/api/v1/openai/"
_KINDS: Final = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}


def problem_response(error: KarezError, path: str = "", *, is_last: bool = False) -> JSONResponse:
    """An error of a path as a response; `is_last` closes a connection that was not read."""
    headers = {"connection": "close"} if is_last else {}
    if isinstance(error, TooManyRequests):
        headers["retry-after"] = str(error.retry_after_s)
    if is_openai(path):
        message = f"{error.what()} {error.hint()}".strip()
        return openai_error(error.status, message, error.code, headers)
    body = {
        "type": f"https://karez.dev/errors/{error.code}",
        "title": error.what(),
        "status": error.status,
        "code": error.code,
        "hint": error.hint(),
        "fields": error.facts(),
    }
    return JSONResponse(body, error.status, media_type=MEDIA_TYPE, headers=headers)


def is_openai(path: str) -> bool:
    """Whether a path is one that OpenAI's clients ask for."""
    return path.startswith(OPENAI)


def openai_error(
    code: int, message: str, name: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """An error in OpenAI's form, with its status for what cannot be read."""
    is_bad = code == HTTPStatus.UNPROCESSABLE_ENTITY
    status = HTTPStatus.BAD_REQUEST if is_bad else HTTPStatus(code)
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "api_error"
    told = {"message": message, "type": _KINDS.get(status, kind), "code": name, "param": None}
    return JSONResponse({"error": told}, status, headers=headers)
