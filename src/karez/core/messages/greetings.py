"""Greetings: the first message on a connection, with the number of the protocol."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from karez.core.messages.wire import PROTOCOL, Malformed, by_type, decode, protocol_mismatch


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessGreeting:
    """A process on a node introduces itself to its node agent."""

    TYPE: ClassVar[str] = "process-greeting"
    key: str
    token: str
    """Given to this process alone."""
    protocol: int = PROTOCOL


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaGreeting:
    """A rank, a node agent or a replica server introduces itself to a replica server."""

    TYPE: ClassVar[str] = "replica-greeting"
    nonce: str
    """A number used once, for the server to show that it knows the job's token."""
    job: str
    """The only job that is spoken of; its token is what both sides know."""
    protocol: int = PROTOCOL


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """A replica server's answer to a greeting; see transport.handshake."""

    TYPE: ClassVar[str] = "challenge"
    nonce: str
    proof: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The caller's answer to a challenge."""

    TYPE: ClassVar[str] = "proof"
    proof: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatGreeting:
    """Control introduces itself to the heartbeat of a node."""

    TYPE: ClassVar[str] = "heartbeat-greeting"
    token: str
    protocol: int = PROTOCOL


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The answer to what cannot be read or is not allowed."""

    TYPE: ClassVar[str] = "refusal"
    refused: str
    """Type of the refused message."""
    why: str


G = TypeVar("G", ProcessGreeting, ReplicaGreeting, HeartbeatGreeting)
A = TypeVar("A", Challenge, Proof)


def read_answer(kind: type[A], received: Mapping[str, Any]) -> A | Refusal | Malformed:
    """Read the next message of a handshake."""
    known: Mapping[str, type[A] | type[Refusal]] = {kind.TYPE: kind, Refusal.TYPE: Refusal}
    return decode(known, received)


def read_greeting(kind: type[G], received: Mapping[str, Any]) -> G | Malformed:
    """Read the first message on a connection; Malformed also for a peer of another release."""
    if why := protocol_mismatch(received.get("protocol")):
        return Malformed(type=kind.TYPE, why=why)
    return decode(by_type([kind]), received)
