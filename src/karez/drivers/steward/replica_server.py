"""Replica server: holds peers' training state in memory and sends this node's to the peers.

Run as `python -m karez.drivers.steward.replica_server HOST PORT MEMORY`, with
KAREZ_REPLICA_TOKEN in its environment; prints its port. It reads a rank's newest snapshot from
shared memory, sends it to the peers' replica servers, and marks it replicated. It never unpickles
anything.
"""

import hmac
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import structlog

from karez.core import environment
from karez.core.messages.greetings import Refusal, ReplicaGreeting
from karez.core.messages.replicas import (
    REPLICA_ANSWERS,
    REPLICA_REQUESTS,
    Done,
    DropJob,
    ForgetRank,
    GetReplica,
    ListReplicas,
    PutReplica,
    ReplicaAnswer,
    ReplicaList,
    ReplicaRequest,
    ShipSnapshot,
)
from karez.core.messages.wire import Malformed, decode
from karez.transport import framing
from karez.transport.connection_limit import ConnectionLimit
from karez.transport.handshake import GREETING_S, NotAdmitted, admit, introduce
from karez.transport.snapshot_file import SnapshotFile, snapshot_path

log = structlog.get_logger()

MAX_GREETINGS = 64
"""Callers that introduce themselves at once; each may take some seconds, and others wait."""
ROOM_SHARE = 0.05
"""Share of the node's memory that replicas leave free."""
MOST_CONNECTIONS, MOST_OF_A_JOB = 8192, 512
"""Connections that are open at once, in all and of one job."""
PAUSE_S = 0.1
MAX_KEPT_STEPS = 2
"""Snapshots kept per rank: Rule R needs the newest and the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Replica:
    body: bytes
    whole: bool
    """Whether the body is a whole snapshot, not a part of one."""
    generation: int
    """Generation that wrote it: of two replicas of one step, the later generation counts."""


class ReplicaServer:
    """Holds snapshots by (job, rank) and step, under one lock."""

    def __init__(self, token: str, memory: Path) -> None:
        """Start empty; `memory` is the folder of the snapshots of this node's ranks."""
        self._token = token
        self._memory = memory
        self._held: dict[tuple[str, int], dict[int, _Replica]] = {}
        """(job, rank) -> step -> what was sent."""
        self._epochs: dict[str, int] = {}
        """The newest epoch that each job has written with: older epochs are fenced off."""
        self._lock = threading.Lock()
        self._all: ConnectionLimit[str] = ConnectionLimit(MOST_CONNECTIONS)
        self._of_jobs: ConnectionLimit[str] = ConnectionLimit(MOST_OF_A_JOB)
        self._greetings = threading.BoundedSemaphore(MAX_GREETINGS)

    def serve(self, peer: socket.socket) -> None:
        """Answer one connection until it closes. What cannot be read is refused, and logged."""
        with peer, self._all.one_of("") as may:
            try:
                if not may:
                    return
                job = self._greet(peer)
                if job is not None:
                    self._answer_within(peer, job)
            except ValueError as error:  # not a frame: where the next one begins is unknown
                refuse(peer, "frame", str(error))
                framing.close_after_refusal(peer)
            except (EOFError, OSError):
                return  # the peer has gone

    def _greet(self, peer: socket.socket) -> str | None:
        """The job whose token a peer knows; None: it is refused."""
        if not self._greetings.acquire(timeout=GREETING_S):
            refuse(peer, ReplicaGreeting.TYPE, "too many callers at once")
            return None
        try:
            return admit(peer, lambda job: token_of(self._token, job))
        except NotAdmitted as error:
            refuse(peer, ReplicaGreeting.TYPE, str(error))
            return None
        finally:
            self._greetings.release()

    def _answer_within(self, peer: socket.socket, job: str) -> None:
        """Answer a job, unless it has too many connections already."""
        with self._of_jobs.one_of(job) as may:
            if may:
                self._answer_all(peer, job)
            else:
                refuse(peer, ReplicaGreeting.TYPE, "too many connections of this job")

    def _answer_all(self, peer: socket.socket, job: str) -> None:
        peers: dict[str, socket.socket] = {}
        while True:
            received, blob = framing.receive(peer)
            request = decode(REPLICA_REQUESTS, received)
            if isinstance(request, Malformed):
                refuse(peer, request.type, request.why)
            elif request.job != job:
                refuse(peer, request.TYPE, "the token is good for another job")
                return
            else:
                answer, body = self.answer(request, blob, peers)
                framing.send_message(peer, answer, body)

    def answer(
        self, request: ReplicaRequest, blob: bytes, peers: dict[str, socket.socket]
    ) -> tuple[ReplicaAnswer, bytes]:
        """Answer one request: (answer, body)."""
        match request:
            case PutReplica():
                return self._put(request, blob), b""
            case ListReplicas():
                return ReplicaList(replicas=self._steps((request.job, request.rank))), b""
            case GetReplica():
                body = self._body((request.job, request.rank), request.step)
                return Done(ok=bool(body)), body
            case ForgetRank():
                self._forget((request.job, request.rank))
            case DropJob():
                with self._lock:
                    for key in [key for key in self._held if key[0] == request.job]:
                        del self._held[key]
                    self._epochs.pop(request.job, None)
            case ShipSnapshot():
                return self._ship(request, peers), b""
        return Done(ok=True), b""

    def _steps(self, name: tuple[str, int]) -> tuple[tuple[int, bool, int], ...]:
        """(step, whether whole, generation) of a rank's replicas and of its own file here."""
        with self._lock:
            kept = self._held.get(name, {})
            found = {step: (step, one.whole, one.generation) for step, one in kept.items()}
        with self._slots(name) as slots:
            for step in () if slots is None else slots.steps():
                left = (step, True, 0 if slots is None else slots.generation(step))
                found[step] = max(found.get(step, left), left, key=lambda one: (one[2], one[1]))
        return tuple(sorted(found.values()))

    def _body(self, name: tuple[str, int], step: int) -> bytes:
        """The bytes of a replica, or of the file left by a rank that moved to another node."""
        with self._lock:
            kept = self._held.get(name, {}).get(step)
        with self._slots(name) as slots:
            snapshot = None if slots is None else slots.read(step)
        if snapshot is None or (kept and kept.whole and kept.generation > snapshot.generation):
            return b"" if kept is None else kept.body
        return snapshot.body

    def _forget(self, name: tuple[str, int]) -> None:
        """Drop the replicas and the snapshot file of a rank that its gang has given up."""
        with self._lock:
            self._held.pop(name, None)
        with self._slots(name) as slots:
            if slots is not None:
                slots.path.unlink(missing_ok=True)

    @contextmanager
    def _slots(self, name: tuple[str, int]) -> Iterator[SnapshotFile | None]:
        """The snapshot file of a rank here, whose content its job may change; None: there is none.

        Raises ValueError where the job cuts it meanwhile.
        """
        path = snapshot_path(self._memory, *name)
        slots = None
        if path.resolve().parent == self._memory.resolve() / name[0]:
            with suppress(OSError, ValueError):
                slots = SnapshotFile(path, is_own=False)
        try:
            yield slots
        finally:
            if slots is not None:
                slots.close()

    def _put(self, request: PutReplica, blob: bytes) -> Done:
        """Store a replica, if its job stays within the memory granted here."""
        name, step, limit = (request.job, request.rank), request.step, request.limit_bytes
        if not _has_room(len(blob)):
            return Done(ok=False)  # the node's state, and not the job's doing: it is tried again
        with self._lock:
            if request.epoch < self._epochs.get(request.job, 0):
                return Done(ok=False)
            self._epochs[request.job] = request.epoch
            held = self._held.setdefault(name, {})
            held[step] = _Replica(body=blob, whole=request.whole, generation=request.generation)
            up_to = [other for other in sorted(held) if other <= step]
            for other in set(held) - set(up_to[-MAX_KEPT_STEPS:]):
                del held[other]  # given up by a recovery, or no longer needed
            used = sum(
                len(kept.body)
                for (job, _), steps in self._held.items()
                if job == name[0]
                for kept in steps.values()
            )
            if limit and used > limit:
                del held[step]
                return Done(ok=False, full_bytes=used)
        return Done(ok=True)

    def _ship(self, request: ShipSnapshot, peers: dict[str, socket.socket]) -> Done:
        """Send one of this node's snapshots to the peers' servers, then mark it replicated."""
        with self._slots((request.job, request.rank)) as slots:
            if slots is None:
                return Done(ok=False)
            snapshot = slots.read(request.step, only=request.only_bytes)
            if snapshot is None:
                return Done(ok=False)
            put = PutReplica(
                job=request.job,
                rank=request.rank,
                step=snapshot.step,
                epoch=request.epoch,
                generation=snapshot.generation,
                whole=not request.only_bytes,
            )
            answer = Done(ok=False)
            for to, limit in zip(request.to, request.limits_bytes, strict=True):
                answer = self._put_at(to, replace(put, limit_bytes=limit), snapshot.body, peers)
                if not answer.ok:
                    return answer
            slots.replicated = max(slots.replicated, snapshot.step)
            return answer

    def _put_at(
        self, to: str, put: PutReplica, body: bytes, peers: dict[str, socket.socket]
    ) -> Done:
        """Put a snapshot at another server; one that does not answer properly is dialled anew."""
        with suppress(OSError, EOFError, ValueError):
            if to not in peers:
                peers[to] = dial(to, token_of(self._token, put.job), put.job)
            framing.send_message(peers[to], put, body)
            received, _ = framing.receive(peers[to])
            answer = decode(REPLICA_ANSWERS, received)
            if isinstance(answer, Done):
                return answer
            log.warning("replica.refused", peer=to, answer=str(answer))
        if (broken := peers.pop(to, None)) is not None:
            broken.close()
        return Done(ok=False)


def _has_room(size: int) -> bool:
    """Whether the node keeps some memory free when a blob, which is here already, stays."""
    memory = psutil.virtual_memory()
    return size < (1 << 20) or bool(memory.available > ROOM_SHARE * memory.total)


def refuse(peer: socket.socket, refused: str, why: str) -> None:
    """Tell a peer that a message is refused, and log it."""
    log.warning("message.refused", type=refused, why=why)
    with suppress(OSError):
        framing.send_message(peer, Refusal(refused=refused, why=why))


def token_of(secret: str, job: str) -> str:
    """The token of one job's ranks, which gives no access to other jobs."""
    return hmac.new(secret.encode(), f"replicas/{job}".encode(), "sha256").hexdigest()


def dial(address: str, token: str, job: str, *, timeout_s: float = 5.0) -> socket.socket:
    """Connect to a replica server as a job, once it has shown that it knows the job's token.

    Raises:
        OSError, EOFError, ValueError: It does not answer, or not as a replica server of this cloud.
    """
    host, _, port = address.rpartition(":")
    peer = socket.create_connection((host, int(port)), timeout=timeout_s)
    try:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        introduce(peer, token, job)
    except BaseException:
        peer.close()
        raise
    return peer


def main() -> None:
    """Listen, print the port, serve until standard input closes."""
    token = os.environ[environment.REPLICA_TOKEN]  # noqa: TID251 - this process's own main
    replicas = ReplicaServer(token, Path(sys.argv[3]))
    server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)

    def accept() -> None:
        pause = threading.Event()
        while True:
            try:
                peer, _ = server.accept()
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:  # such as too many open files: it passes
                log.warning("connection.not-taken", why=str(error))
                pause.wait(PAUSE_S)
                continue
            threading.Thread(target=replicas.serve, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdout.write(f"{server.getsockname()[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()  # the steward's end of the pipe: closed when it dies


if __name__ == "__main__":
    main()
