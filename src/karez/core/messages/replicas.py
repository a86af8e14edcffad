"""Requests to replica servers, which hold snapshots of ranks in memory, and their answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, get_args

from karez.core.codec import Count
from karez.core.messages.greetings import Refusal
from karez.core.messages.wire import by_type


@dataclass(frozen=True, slots=True, kw_only=True)
class PutReplica:
    """Hold this snapshot; its bytes follow the message."""

    TYPE: ClassVar[str] = "put"
    job: str
    rank: Count
    step: Count
    epoch: Count = 0
    """Epoch of the job: one older than the newest that the server knows is refused."""
    generation: Count = 0
    whole: bool = True
    """Whether the bytes are a whole snapshot, not its first part alone."""
    limit_bytes: Count = 0
    """Most bytes that the job may hold at this server; 0: no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListReplicas:
    """List the snapshots of a rank; the answer is ReplicaList."""

    TYPE: ClassVar[str] = "list"
    job: str
    rank: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class GetReplica:
    """Send a rank's snapshot of a step; its bytes follow the answer."""

    TYPE: ClassVar[str] = "get"
    job: str
    rank: Count
    step: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetRank:
    """Drop all snapshots of a rank that its gang has given up."""

    TYPE: ClassVar[str] = "forget"
    job: str
    rank: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class DropJob:
    """Drop all snapshots of a job."""

    TYPE: ClassVar[str] = "drop"
    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShipSnapshot:
    """Send this node's snapshot of a rank to other replica servers."""

    TYPE: ClassVar[str] = "ship"
    job: str
    rank: Count
    step: Count
    to: tuple[str, ...]
    limits_bytes: tuple[Count, ...]
    """`limit_bytes` at each of the servers in `to`."""
    epoch: Count = 0
    only_bytes: Count = 0
    """Send so many bytes from the beginning; 0: all of them."""

    def __post_init__(self) -> None:
        if len(self.to) != len(self.limits_bytes):
            raise ValueError("each server in `to` needs its limit in `limits_bytes`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Whether a request was carried out."""

    TYPE: ClassVar[str] = "done"
    ok: bool
    full_bytes: Count = 0
    """Bytes that the job would hold at a server that has no room for them; else 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaList:
    """Snapshots of a rank."""

    TYPE: ClassVar[str] = "replica-list"
    replicas: tuple[tuple[Count, bool, Count], ...]
    """(step, whether whole, generation) of each, by step."""


ReplicaRequest = PutReplica | ListReplicas | GetReplica | ForgetRank | DropJob | ShipSnapshot
ReplicaAnswer = Done | ReplicaList | Refusal

REPLICA_REQUESTS: Final[Mapping[str, type[ReplicaRequest]]] = by_type(get_args(ReplicaRequest))
REPLICA_ANSWERS: Final[Mapping[str, type[ReplicaAnswer]]] = by_type(get_args(ReplicaAnswer))
