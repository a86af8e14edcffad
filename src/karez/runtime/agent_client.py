"""A rank's line to its node's steward, and to the keepers of state."""

import contextlib
import json
import os
import queue
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from karez.core import environment
from karez.transport import framing

MEMORY = environment.POOLED_MEMORY
ASK_S = 1.0
"""How long a keeper may take to say what it has: one that is cut off must hold nobody up."""
RETRY_S = 0.05
"""Pause before a snapshot is sent again after a keeper did not take it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankEnvironment:
    """What the steward put into this process's environment."""

    key: str
    job: str
    rank: int
    world: int
    steward: str
    replica_server: str
    replica_token: str
    replica_servers: tuple[str, ...]
    snapshot_folder: str
    inputs: str
    out: str
    restore: str
    device: str
    address: str
    epoch: int = 0
    memory: Mapping[str, int] = field(default_factory=dict)
    """Keeper -> bytes that this job holds there."""


def rank_environment() -> RankEnvironment:
    """Read them from the environment; outside a cloud all are empty and the world is one rank."""
    env = os.environ  # noqa: TID251 - the one place where a rank reads it
    return RankEnvironment(
        key=env.get(environment.KEY_NAME, ""),
        job=env.get(environment.JOB, ""),
        rank=int(env.get("RANK", "0")),
        world=int(env.get("WORLD_SIZE", "1")),
        steward=env.get(environment.STEWARD, ""),
        replica_server=env.get(environment.KEEPER, ""),
        replica_token=env.get(environment.KEEPER_TOKEN, ""),
        replica_servers=tuple(filter(None, env.get(environment.KEEPERS, "").split(","))),
        snapshot_folder=env.get(environment.SLOTS, ""),
        inputs=env.get(environment.INPUTS, "inputs"),
        out=env.get(environment.OUT, "out"),
        restore=env.get(environment.RESTORE, ""),
        device=env.get(environment.DEVICE, "cpu"),
        address=env.get(environment.ADDRESS, "127.0.0.1"),
        epoch=int(env.get(environment.EPOCH, "0")),
        memory={m["keeper"]: int(m["bytes"]) for m in json.loads(env.get(MEMORY, "[]"))},
    )


class AgentClient:
    """Messages both ways. `hear` gets each at once, on the link's own thread, before the inbox."""

    def __init__(self, path: str, key: str, hear: Callable[[Mapping[str, Any]], None]) -> None:
        """Connect. Raises OSError if the steward has gone."""
        self.inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._hear = hear
        self._lock = threading.Lock()
        self._stream = socket.socket(socket.AF_UNIX)
        self._stream.connect(path)
        framing.send(self._stream, {"key": key})
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, kind: str, **data: object) -> None:
        """Send a message."""
        with self._lock:
            framing.send(self._stream, {"type": kind, **data})

    def _listen(self) -> None:
        try:
            while True:
                message, _ = framing.receive(self._stream)
                self._hear(message)
                self.inbox.put(message)
        except (EOFError, OSError):
            os._exit(70)  # no steward: nobody may act for this rank any more (EX_SOFTWARE)


class ReplicaClient:
    """A connection to one keeper. Not for several threads."""

    def __init__(self, address: str, place: RankEnvironment, *, timeout_s: float = 5.0) -> None:
        """Connect. Raises OSError."""
        host, _, port = address.rpartition(":")
        self._stream = socket.create_connection((host, int(port)), timeout=timeout_s)
        self._stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        framing.send(self._stream, {"token": place.replica_token, "job": place.job})

    def ask(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        """One request. Raises OSError or EOFError."""
        framing.send(self._stream, request)
        return framing.receive(self._stream)

    def cut(self) -> None:
        """Make a request under way on another thread fail at once."""
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up."""
        self._stream.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaInfo:
    """A snapshot that a keeper has."""

    address: str
    whole: bool
    """Whether it is all of it."""
    generation: int
    """In which it was written."""


def replicas_at_peers(
    place: RankEnvironment, *, index: int | None = None, keepers: Sequence[str] = ()
) -> dict[int, ReplicaInfo]:
    """Step -> where a rank's snapshot is: all of it rather than a part, then the newest.

    Args:
        place: Of the rank that asks.
        index: Whose; the own, unless another is named.
        keepers: Whom to ask besides those that this rank was started with.
    """
    found: dict[int, ReplicaInfo] = {}
    request = {"op": "list", "job": place.job, "rank": place.rank if index is None else index}
    asked = list(dict.fromkeys((*keepers, *place.replica_servers, *place.memory)))

    def ask(address: str) -> list[tuple[int, ReplicaInfo]]:
        try:
            line = ReplicaClient(address, place, timeout_s=ASK_S)
            answer, _ = line.ask(request)
            line.close()
        except (OSError, EOFError):
            return []  # that keeper went with its node
        return [
            (int(step), ReplicaInfo(address=address, whole=bool(whole), generation=int(generation)))
            for step, whole, generation in answer["steps"]
        ]

    with ThreadPoolExecutor(max_workers=max(1, len(asked))) as pool:  # some may be cut off
        answers = list(pool.map(ask, asked))
    for step, kept in (one for answer in answers for one in answer):
        known = found.get(step, kept)
        found[step] = max(known, kept, key=lambda one: (one.whole, one.generation))
    return found


def fetch_replica(
    place: RankEnvironment, address: str, step: int, *, index: int | None = None
) -> bytes | None:
    """A rank's snapshot of a step, from a keeper that has it. Raises OSError, EOFError."""
    line = ReplicaClient(address, place)
    whose = place.rank if index is None else index
    answer, body = line.ask({"op": "get", "job": place.job, "rank": whose, "step": step})
    line.close()
    return body if answer["ok"] else None


def drop_replicas(place: RankEnvironment, indices: Sequence[int], keepers: Sequence[str]) -> None:
    """Have keepers forget these ranks of the own job; one that is gone has forgotten already."""
    for address in dict.fromkeys((*keepers, *place.replica_servers)):
        with contextlib.suppress(OSError, EOFError):
            line = ReplicaClient(address, place)
            for index in indices:
                line.ask({"op": "forget", "job": place.job, "rank": index})
            line.close()


class SnapshotReplicator:
    """Has this node's keeper send the newest snapshot to the peers, off the training thread."""

    def __init__(self, place: RankEnvironment) -> None:
        """Nothing is connected yet."""
        self.full_bytes = 0
        """What a job's snapshots needed of the memory that it holds elsewhere, if too much."""
        self.epoch = place.epoch
        """Keepers take nothing from an epoch older than the newest that they have heard from."""
        self._place = place
        self._news = threading.Condition()
        self._wanted: tuple[int, tuple[str, ...], int] | None = None
        self._line: ReplicaClient | None = None
        self._sending_to: tuple[str, ...] = ()
        """The peers that a request under way waits for."""
        threading.Thread(target=self._work, daemon=True).start()

    def replicate(self, step: int, peers: tuple[str, ...], only: int) -> None:
        """Ask for one snapshot to be sent, or only its first bytes; returns at once.

        Other peers than before: a request that still waits for one of those is given up, since a
        peer behind a cut cable would be waited for until the connection times out.
        """
        with self._news:
            self._wanted = (step, peers, only)
            if self._line is not None and self._sending_to not in ((), peers):
                self._line.cut()
            self._news.notify()

    def _work(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._wanted is not None)
                assert self._wanted is not None
                asked = self._wanted
            done = self._send(asked)
            with self._news:
                if done and self._wanted == asked:
                    self._wanted = None
                elif not done:  # a keeper was lost: it is started anew, or other peers are named
                    self._news.wait_for(lambda: self._wanted != asked, timeout=RETRY_S)  # noqa: B023 - called here

    def _send(self, asked: tuple[int, tuple[str, ...], int]) -> bool:
        try:
            line = self._line or ReplicaClient(self._place.replica_server, self._place)
            with self._news:
                self._line, self._sending_to = line, asked[1]
            answer, _ = line.ask(self._request(*asked))
        except (OSError, EOFError):
            with self._news:
                self._line, self._sending_to = None, ()
            return False
        with self._news:
            self._sending_to = ()
        self.full_bytes = int(answer.get("full", 0))
        return bool(answer["ok"]) or bool(self.full_bytes)

    def _request(self, step: int, peers: tuple[str, ...], only: int) -> dict[str, Any]:
        place = self._place
        return {
            "op": "ship",
            "job": place.job,
            "rank": place.rank,
            "step": step,
            "epoch": self.epoch,
            "to": peers,
            "limits": [place.memory.get(peer, 0) for peer in peers],
            "only": only,
        }
