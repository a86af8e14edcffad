"""How two ends of a connection show each other that they know a secret, which never travels.

The caller sends a number used once; the server answers with one of its own, and with what it makes
of the caller's by the secret; the caller answers likewise (HMAC-SHA256, challenge and response).
"""

import hmac
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from karez.core.messages.greetings import (
    Challenge,
    Proof,
    Refusal,
    ReplicaGreeting,
    read_answer,
    read_greeting,
)
from karez.core.messages.wire import Malformed
from karez.transport import framing

GREETING_BYTES = 4096
"""Largest message before it is known who speaks."""
GREETING_S = 5.0
"""Longest time, in seconds, until it is known who speaks."""
_CALLER, _SERVER = "caller", "server"


class NotAdmitted(Exception):
    """The other side does not know the secret, or speaks another protocol."""


def introduce(stream: socket.socket, token: str, job: str) -> None:
    """Show a server that one knows a job's token, and have it show so too.

    Raises:
        OSError: The server refuses, or does not know the token.
        EOFError: The server has closed the connection.
        ValueError: It does not speak this protocol.
    """
    greeting = ReplicaGreeting(job=job, nonce=secrets.token_hex(16))
    framing.send_message(stream, greeting)
    challenge = read_answer(Challenge, framing.receive(stream)[0])
    if isinstance(challenge, Refusal | Malformed):
        raise OSError(f"the replica server refuses: {challenge.why}")
    if not _is_equal(challenge.proof, _proof(token, _SERVER, job, greeting.nonce)):
        raise OSError("this is no replica server of this cloud: it does not know the job's token")
    framing.send_message(stream, Proof(proof=_proof(token, _CALLER, job, challenge.nonce)))


def admit(stream: socket.socket, token_of: Callable[[str], str]) -> str:
    """Admit a caller that knows the token of the job that it names; returns the job.

    Raises:
        NotAdmitted: It does not. It has not been told yet.
        EOFError, OSError: It has gone, or takes too long.
        ValueError: It sends something else.
    """
    with within(stream, GREETING_S):
        return _admit(stream, token_of)


@contextmanager
def within(stream: socket.socket, seconds: float) -> Iterator[None]:
    """Break a connection off unless what is done within ends in time, however slowly it goes on."""

    def break_off() -> None:
        with suppress(OSError):  # it is closed already
            stream.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, break_off)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _admit(stream: socket.socket, token_of: Callable[[str], str]) -> str:
    greeting = read_greeting(ReplicaGreeting, _receive(stream))
    if isinstance(greeting, Malformed):
        raise NotAdmitted(greeting.why)
    token, nonce = token_of(greeting.job), secrets.token_hex(16)
    proof = _proof(token, _SERVER, greeting.job, greeting.nonce)
    framing.send_message(stream, Challenge(nonce=nonce, proof=proof))
    answer = read_answer(Proof, _receive(stream))
    if isinstance(answer, Refusal | Malformed) or not _is_equal(
        answer.proof, _proof(token, _CALLER, greeting.job, nonce)
    ):
        raise NotAdmitted("wrong token")
    return greeting.job


def _receive(stream: socket.socket) -> dict[str, object]:
    return framing.receive(stream, head_limit=GREETING_BYTES, blob_limit=0)[0]


def _proof(token: str, side: str, job: str, nonce: str) -> str:
    return hmac.new(token.encode(), f"{side}/{job}/{nonce}".encode(), "sha256").hexdigest()


def _is_equal(found: str, expected: str) -> bool:
    return hmac.compare_digest(found.encode(), expected.encode())
