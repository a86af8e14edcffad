"""A node's pulse: a byte ten times a second over a connection of its own.

Ray notices a silent node after 14 to 66 seconds by default; a gang cannot wait for that. Whoever
has work on a node listens to its pulse: a closed connection says at once that the agent has ended,
and silence says within a second or so that the host or its network has.
"""

import hmac
import socket
import threading
import time
from collections import deque

from karez.transport import framing

BEAT_S = 0.1
FACTOR = 5.0
"""Silence counts from so many times the 99th percentile of the gaps before it on."""
KNOWN = 20
"""Gaps that make a limit of their own."""
RESET_S = 0.01
DIAL_S = 0.5
"""How long to try to reach a pulse that broke off."""


class HeartbeatServer:
    """Beats for whoever knows the token."""

    def __init__(self, address: str, token: str) -> None:
        """Listen on a port of its own choice."""
        self._token = token
        self._server = socket.create_server((address, 0))
        self.address = f"{address}:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Listen no more."""
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._server.accept()
            except OSError:
                return  # stopped
            threading.Thread(target=self._beat, args=(peer,), daemon=True).start()

    def _beat(self, peer: socket.socket) -> None:
        pause = threading.Event()
        with peer:
            try:
                peer.settimeout(5.0)
                hello, _ = framing.receive(peer)
                if not hmac.compare_digest(str(hello.get("token")), self._token):
                    return
                while True:
                    peer.sendall(b".")
                    pause.wait(BEAT_S)
            except (OSError, EOFError, ValueError):
                return  # nobody listens any more


class Heartbeat:
    """Listens to one node's pulse, on a thread of its own, until closed."""

    def __init__(self, address: str, token: str, limit_s: float) -> None:
        """Connect in the background."""
        self._address, self._token, self._limit_s = address, token, limit_s
        self._gaps: deque[float] = deque(maxlen=300)
        self._heard_at = _now()
        self._has_ended = False
        self._is_over = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def is_lost(self) -> bool:
        """Whether the node's agent has ended, or has been silent for too long."""
        return self._has_ended or _now() - self._heard_at > self.limit_s

    @property
    def has_ended(self) -> bool:
        """Whether the agent has ended, which is no matter of patience."""
        return self._has_ended

    @property
    def limit_s(self) -> float:
        """How long it may be silent: the limit given, or more where it was irregular before."""
        if len(self._gaps) < KNOWN:
            return max(self._limit_s, DIAL_S * 2)
        ordered = sorted(self._gaps)
        return max(self._limit_s, FACTOR * ordered[int(0.99 * (len(ordered) - 1))])

    def close(self) -> None:
        """Listen no more."""
        self._is_over.set()

    def _listen(self) -> None:
        while not self._is_over.is_set():
            try:
                with self._dial() as stream:
                    self._follow(stream)
            except ConnectionRefusedError:
                self._has_ended = True
            except ConnectionResetError:
                self._is_over.wait(RESET_S)  # it is about to end: dialled again, it refuses
            except OSError:
                self._is_over.wait(BEAT_S)  # silence is what counts
            if self._has_ended:
                self._is_over.wait(DIAL_S)  # it may come back

    def _dial(self) -> socket.socket:
        host, _, port = self._address.rpartition(":")
        stream = socket.create_connection((host, int(port)), timeout=DIAL_S)
        framing.send(stream, {"token": self._token})
        return stream

    def _follow(self, stream: socket.socket) -> None:
        stream.settimeout(1.0)
        while not self._is_over.is_set():
            try:
                heard = stream.recv(64)
            except TimeoutError:
                continue
            if not heard:
                return  # it broke off: dial again, and be refused if the agent has ended
            now = _now()
            self._gaps.append(now - self._heard_at)
            self._heard_at, self._has_ended = now, False


def _now() -> float:
    return time.monotonic()  # noqa: TID251 - an edge owns its clock
