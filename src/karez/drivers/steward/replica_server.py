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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from karez.core import environment
from karez.transport import framing
from karez.transport.snapshot_file import SnapshotFile, snapshot_path

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

    def serve(self, peer: socket.socket) -> None:
        """Answer one connection until it closes."""
        with peer:
            try:
                hello, _ = framing.receive(peer)
                job = str(hello.get("job", ""))
                expected = token_of(self._token, job) if job else self._token
                if not hmac.compare_digest(str(hello.get("token")), expected):
                    return
                peers: dict[str, socket.socket] = {}
                while True:
                    request, blob = framing.receive(peer)
                    if job and request.get("job") != job:
                        return  # a job's token is good for that job alone
                    answer, body = self.answer(request, blob, peers)
                    framing.send(peer, answer, body)
            except (EOFError, OSError, ValueError, KeyError):
                return  # a broken connection or a malformed request ends the connection

    def answer(
        self, request: dict[str, Any], blob: bytes, peers: dict[str, socket.socket]
    ) -> tuple[dict[str, Any], bytes]:
        """Answer one request: (answer, body)."""
        name = (str(request.get("job")), int(request.get("rank", 0)))
        match request["op"]:
            case "put":
                return self._put(name, request, blob), b""
            case "list":
                return {"steps": self._steps(name)}, b""
            case "get":
                body = self._body(name, int(request["step"]))
                return {"ok": bool(body)}, body
            case "forget":
                return self._forget(name), b""
            case "drop":
                with self._lock:
                    for key in [key for key in self._held if key[0] == name[0]]:
                        del self._held[key]
                    self._epochs.pop(name[0], None)
                return {"ok": True}, b""
            case "ship":
                return self._ship(request, peers), b""
            case _:
                return {"ok": False}, b""

    def _steps(self, name: tuple[str, int]) -> list[tuple[int, bool, int]]:
        """(step, whether whole, generation) of a rank's replicas and of its own file here."""
        with self._lock:
            kept = self._held.get(name, {})
            found = {step: (step, one.whole, one.generation) for step, one in kept.items()}
        if (slots := self._slots(name)) is not None:
            for step in slots.steps():
                left = (step, True, slots.generation(step))
                found[step] = max(found.get(step, left), left, key=lambda one: (one[2], one[1]))
            slots.close()
        return sorted(found.values())

    def _body(self, name: tuple[str, int], step: int) -> bytes:
        """The bytes of a replica, or of the file left by a rank that moved to another node."""
        with self._lock:
            kept = self._held.get(name, {}).get(step)
        slots = self._slots(name)
        snapshot = None if slots is None else slots.read(step)
        if slots is not None:
            slots.close()
        if snapshot is None or (kept and kept.whole and kept.generation > snapshot.generation):
            return b"" if kept is None else kept.body
        return snapshot.body

    def _forget(self, name: tuple[str, int]) -> dict[str, Any]:
        """Drop the replicas and the snapshot file of a rank that its gang has given up."""
        with self._lock:
            self._held.pop(name, None)
        if (slots := self._slots(name)) is not None:
            slots.close()
            slots.path.unlink(missing_ok=True)
        return {"ok": True}

    def _slots(self, name: tuple[str, int]) -> SnapshotFile | None:
        path = snapshot_path(self._memory, *name).resolve()
        if not path.is_relative_to(self._memory.resolve()):
            return None
        try:
            return SnapshotFile(path)
        except (OSError, ValueError):
            return None

    def _put(self, name: tuple[str, int], request: dict[str, Any], blob: bytes) -> dict[str, Any]:
        """Store a replica, if its job stays within the memory granted here."""
        step, epoch = int(request["step"]), int(request.get("epoch", 0))
        limit = int(request.get("limit", 0))
        with self._lock:
            if epoch < self._epochs.get(name[0], 0):
                return {"ok": False}
            self._epochs[name[0]] = epoch
            held = self._held.setdefault(name, {})
            held[step] = _Replica(
                body=blob,
                whole=bool(request.get("whole", True)),
                generation=int(request.get("generation", 0)),
            )
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
                return {"ok": False, "full": used}
        return {"ok": True}

    def _ship(self, request: dict[str, Any], peers: dict[str, socket.socket]) -> dict[str, Any]:
        """Send one of this node's snapshots to the peers' servers, then mark it replicated."""
        slots = self._slots((str(request["job"]), int(request["rank"])))
        to = ""
        if slots is None:
            return {"ok": False}
        try:
            only = int(request.get("only", 0))
            snapshot = slots.read(int(request["step"]), only=only)
            if snapshot is None:
                return {"ok": False}
            body = snapshot.body
            head = {key: request.get(key, 0) for key in ("job", "rank", "epoch")}
            head |= {"op": "put", "step": snapshot.step, "whole": not only}
            head["generation"] = snapshot.generation
            answer: dict[str, Any] = {"ok": False}
            for to, limit in zip(request["to"], request["limits"], strict=True):
                if to not in peers:
                    peers[to] = dial(to, self._token)
                framing.send(peers[to], {**head, "limit": limit}, body)
                answer, _ = framing.receive(peers[to])
                if not answer["ok"]:
                    return answer
            slots.replicated = max(slots.replicated, snapshot.step)
            return answer
        except (OSError, EOFError):
            peers.pop(to, None)
            return {"ok": False}
        finally:
            slots.close()


def token_of(secret: str, job: str) -> str:
    """The token of one job's ranks, which gives no access to other jobs."""
    return hmac.new(secret.encode(), job.encode(), "sha256").hexdigest()


def dial(address: str, token: str, *, timeout_s: float = 5.0) -> socket.socket:
    """Connect to a replica server and send the token. Raises OSError."""
    host, _, port = address.rpartition(":")
    peer = socket.create_connection((host, int(port)), timeout=timeout_s)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    framing.send(peer, {"token": token})
    return peer


def main() -> None:
    """Listen, print the port, serve until standard input closes."""
    token = os.environ[environment.REPLICA_TOKEN]  # noqa: TID251 - this process's own main
    replicas = ReplicaServer(token, Path(sys.argv[3]))
    server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)

    def accept() -> None:
        while True:
            peer, _ = server.accept()
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=replicas.serve, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdout.write(f"{server.getsockname()[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()  # the steward's end of the pipe: closed when it dies


if __name__ == "__main__":
    main()
