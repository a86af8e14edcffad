"""Requests to replica servers, which hold snapshots of ranks in the memory of other nodes."""

import contextlib
import socket
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from karez.core.messages.greetings import Refusal
from karez.core.messages.replicas import (
    REPLICA_ANSWERS,
    Done,
    ForgetRank,
    GetReplica,
    ListReplicas,
    ReplicaAnswer,
    ReplicaList,
    ReplicaRequest,
)
from karez.core.messages.wire import Malformed, decode
from karez.runtime.rank_environment import RankEnvironment
from karez.transport import framing
from karez.transport.handshake import introduce

LIST_TIMEOUT_S = 1.0
"""How long a replica server may take to list its snapshots: one behind a broken network must not
delay the restore."""


class ReplicaClient:
    """A connection to one replica server. Not for several threads."""

    def __init__(
        self, address: str, environment: RankEnvironment, *, timeout_s: float = 5.0
    ) -> None:
        """Connect. Raises OSError."""
        host, _, port = address.rpartition(":")
        self._stream = socket.create_connection((host, int(port)), timeout=timeout_s)
        self._stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            introduce(self._stream, environment.replica_token, environment.job)
        except (OSError, EOFError, ValueError) as error:
            self._stream.close()
            raise OSError(f"{address} does not answer as a replica server: {error}") from error

    def request(self, request: ReplicaRequest) -> tuple[ReplicaAnswer, bytes]:
        """Send one request and return the answer.

        Raises:
            OSError: The server does not answer, or its answer cannot be read.
            EOFError: The server has closed the connection.
        """
        framing.send_message(self._stream, request)
        try:
            received, body = framing.receive(self._stream)
        except ValueError as error:
            raise OSError(f"the replica server's answer cannot be read: {error}") from error
        answer = decode(REPLICA_ANSWERS, received)
        if isinstance(answer, Malformed):
            raise OSError(f"the replica server's answer cannot be read: {answer.why}")
        if isinstance(answer, Refusal):
            sys.stderr.write(f"karez: request {answer.refused!r} was refused: {answer.why}\n")
        return answer, body

    def interrupt(self) -> None:
        """Make a request under way on another thread fail at once."""
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaInfo:
    """A snapshot that a replica server holds."""

    address: str
    whole: bool
    """Whether the shared part is there too, and not the per-rank part alone."""
    generation: int
    """Generation in which the snapshot was written."""


def replicas_at_peers(
    environment: RankEnvironment, *, index: int | None = None, replica_servers: Sequence[str] = ()
) -> dict[int, ReplicaInfo]:
    """Find the replicas of a rank's snapshots, by step: whole ones first, then the newest.

    Args:
        environment: The environment of the rank that asks.
        index: The rank whose replicas are wanted; None: the one that asks.
        replica_servers: Replica servers to ask besides those that this rank was started with.
    """
    rank = environment.rank if index is None else index
    request = ListReplicas(job=environment.job, rank=rank)
    servers = dict.fromkeys((*replica_servers, *environment.replica_servers, *environment.memory))
    with ThreadPoolExecutor(max_workers=max(1, len(servers))) as pool:  # some may not answer
        answers = list(
            pool.map(lambda server: _list_replicas(server, environment, request), servers)
        )
    best: dict[int, ReplicaInfo] = {}
    for step, replica in (pair for answer in answers for pair in answer):
        candidates = (best.get(step, replica), replica)
        best[step] = max(candidates, key=lambda info: (info.whole, info.generation))
    return best


def _list_replicas(
    address: str, environment: RankEnvironment, request: ListReplicas
) -> list[tuple[int, ReplicaInfo]]:
    try:
        client = ReplicaClient(address, environment, timeout_s=LIST_TIMEOUT_S)
        answer, _ = client.request(request)
        client.close()
    except (OSError, EOFError):
        return []  # this replica server was lost with its node
    found = answer.replicas if isinstance(answer, ReplicaList) else ()
    return [
        (step, ReplicaInfo(address=address, whole=whole, generation=generation))
        for step, whole, generation in found
    ]


def fetch_replica(
    environment: RankEnvironment, address: str, step: int, *, index: int | None = None
) -> bytes | None:
    """Fetch a rank's snapshot of a step from a replica server. Raises OSError, EOFError."""
    client = ReplicaClient(address, environment)
    rank = environment.rank if index is None else index
    answer, body = client.request(GetReplica(job=environment.job, rank=rank, step=step))
    client.close()
    return body if isinstance(answer, Done) and answer.ok else None


def drop_replicas(
    environment: RankEnvironment, indices: Sequence[int], replica_servers: Sequence[str]
) -> None:
    """Have replica servers delete the snapshots of these ranks of the own job.

    A server that has gone is skipped: its memory went with it.
    """
    for address in dict.fromkeys((*replica_servers, *environment.replica_servers)):
        with contextlib.suppress(OSError, EOFError):
            client = ReplicaClient(address, environment)
            for index in indices:
                client.request(ForgetRank(job=environment.job, rank=index))
            client.close()
