"""A request of a caller, and what answers it."""

from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import Protocol, TypeVar

from karez.core.routing import GatewayKey
from karez.serving.answers import Refusal

MAX_HEAD_BYTES = 64 << 10
MAX_BODY_BYTES = 32 << 20
"""Largest request. vLLM and llama.cpp take more than any context needs; this stops abuse."""
FILES, MAX_FILE_BYTES = "/v1/files", 513 << 20
"""Where a file may be sent, and the largest form that has one."""
Connection_contra = TypeVar("Connection_contra", contravariant=True)


@dataclass(slots=True, eq=False, weakref_slot=True)
class Request:
    """A request, whose body may still be on its way."""

    method: str = ""
    path: str = ""
    query: str = ""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    """By name in small letters."""
    body: bytearray = field(default_factory=bytearray)
    spool: "SpooledTemporaryFile[bytes] | None" = None
    """Takes the body in place of `body`, where the application has asked for that."""
    keeps_alive: bool = True
    has_chunks: bool = True
    """Whether its caller understands an answer in chunks: HTTP/1.0 does not."""
    refusal: Refusal | None = None
    address: str = ""
    """Of who holds the connection; of who sent it, once the application has looked at it."""
    key: GatewayKey | None = None
    """Once it is known to be valid."""

    def drop_body(self) -> None:
        """Let go of a body that nobody will read."""
        if self.spool is not None:
            self.spool.close()


class Exchange(Protocol):
    """What works on the request of a connection."""

    def gone(self) -> None:
        """The caller has hung up."""

    def paused(self, is_paused: bool) -> None:
        """The caller reads slower than the answer comes, or has caught up."""


class Caller(Protocol):
    """Whoever is answered: the connection that a request came from."""

    def answer(self, status: int, kind: bytes, data: bytes, headers: bytes = b"") -> None:
        """Send a whole answer, which ends the exchange."""

    def refuse(self, refusal: Refusal) -> None:
        """Send an error, which ends the exchange."""

    def start(self, status: int, kind: bytes, headers: bytes) -> None:
        """Send the head of an answer that comes in pieces."""

    def piece(self, data: bytes) -> None:
        """Send a piece of an answer."""

    def finish(self) -> None:
        """End an answer that came in pieces."""

    def abort(self) -> None:
        """Drop the connection at once."""


class Application(Protocol[Connection_contra]):
    """What answers requests."""

    def check(self, request: Request) -> None:
        """Look at a request whose body has not been read. Raises Refusal."""

    def begin(self, request: Request, connection: Connection_contra) -> Exchange | None:
        """Begin to answer a request; None if that is done. Raises Refusal."""

    def refused(self, request: Request, refusal: Refusal) -> None:
        """Note that a request was refused by one of the two above, or cannot be read."""


def check_sizes(request: Request, head_bytes: int) -> None:
    """Refuse a request whose head or announced body is too large. Raises Refusal."""
    if head_bytes > MAX_HEAD_BYTES:
        raise large_head()
    has_body = request.headers.get(b"content-length", b"0") != b"0"
    if request.method != "POST" and (has_body or b"transfer-encoding" in request.headers):
        raise Refusal(400, "invalid_request_error", f"{request.method} takes no body.")
    if int(request.headers.get(b"content-length", b"0")) > largest(request):
        raise large_body(request)


def large_head() -> Refusal:
    """The refusal of a head that is too large."""
    message = f"The head of the request exceeds {MAX_HEAD_BYTES} bytes."
    return Refusal(431, "invalid_request_error", message)


def largest(request: Request) -> int:
    """Bytes of the largest body that a request may have."""
    return MAX_FILE_BYTES if request.path == FILES else MAX_BODY_BYTES


def large_body(request: Request) -> Refusal:
    """The refusal of a body that is too large."""
    message = f"The body exceeds {largest(request)} bytes."
    return Refusal(413, "invalid_request_error", message)
