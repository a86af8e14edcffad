"""Greetings: the first message on a connection, with the number of the protocol."""

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from karez.core.messages.wire import PROTOCOL, by_type
from karez.core.validation import FORBID


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessGreeting:
    """A process on a node introduces itself to its node agent."""

    TYPE: ClassVar[str] = "process-greeting"
    __pydantic_config__: ClassVar[Any] = FORBID
    key: str
    protocol: int = PROTOCOL


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaGreeting:
    """A rank, a node agent or a replica server introduces itself to a replica server."""

    TYPE: ClassVar[str] = "replica-greeting"
    __pydantic_config__: ClassVar[Any] = FORBID
    token: str
    job: str = ""
    """The only job that the token is good for; empty: the token is that of the nodes."""
    protocol: int = PROTOCOL


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatGreeting:
    """Control introduces itself to the heartbeat of a node."""

    TYPE: ClassVar[str] = "heartbeat-greeting"
    __pydantic_config__: ClassVar[Any] = FORBID
    token: str
    protocol: int = PROTOCOL


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The answer to what cannot be read or is not allowed."""

    TYPE: ClassVar[str] = "refusal"
    __pydantic_config__: ClassVar[Any] = FORBID
    refused: str
    """Type of the refused message."""
    why: str


GREETINGS: Final = by_type([ProcessGreeting])
REPLICA_GREETINGS: Final = by_type([ReplicaGreeting])
HEARTBEAT_GREETINGS: Final = by_type([HeartbeatGreeting])
