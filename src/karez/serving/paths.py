"""The paths of the gateway, and the methods that they take."""

from typing import Final

from karez.serving.admission import POSTS
from karez.serving.answers import Refusal
from karez.serving.call_terms import INVALID
from karez.serving.http_request import Request

GETS: Final = frozenset({"/health", "/metrics", "/v1/models"})
PUBLIC: Final = frozenset({"/health", "/metrics"})
OF_CONTROL: Final = {
    "files": frozenset({"GET", "POST", "DELETE"}),
    "batches": frozenset({"GET", "POST"}),
}
"""What control answers: first part of a path behind /v1/ -> its methods."""
_GET, _POST, _NONE = frozenset({"GET"}), frozenset({"POST"}), frozenset[str]()


def check_path(request: Request) -> bool:
    """Check a request's path and method; returns whether control answers it. Raises Refusal."""
    path, method = request.path, request.method
    methods = _methods(path)
    if not methods:
        raise Refusal(404, "not_found_error", f"The gateway has no {path}; see /v1/models.")
    if method not in methods:
        raise Refusal(405, INVALID, f"{path} takes {' or '.join(sorted(methods))}.")
    return path not in GETS and path not in POSTS


def _methods(path: str) -> frozenset[str]:
    if path in GETS:
        return _GET
    if path in POSTS:
        return _POST
    parts = path.split("/")
    is_plain = path.startswith("/v1/") and ".." not in parts
    return OF_CONTROL.get(parts[2], _NONE) if is_plain else _NONE
