"""Heartbeat of a node: a byte ten times a second over a connection of its own.

Ray notices a silent node after 14 to 66 seconds by default; a gang cannot wait for that. Control
listens to the heartbeat of each node that has work: a closed connection means that the agent has
ended, and silence for about a second that the host or its network has failed.
"""

import hmac
import socket
import threading
import time
from collections import deque

import structlog

from karez.core.messages.greetings import HeartbeatGreeting, read_greeting
from karez.core.messages.wire import Malformed
from karez.transport import framing

log = structlog.get_logger()

BEAT_S = 0.1
FACTOR = 5.0
"""A gap counts as silence from this multiple of the 99th percentile of earlier gaps."""
MIN_GAPS = 20
"""Gaps that have to be measured before the limit adapts to them."""
RESET_S = 0.01
DIAL_S = 0.5
"""Seconds to try to reconnect to a heartbeat that broke off."""


class HeartbeatServer:
    """Sends heartbeats to every client that shows the token."""

    def __init__(self, address: str, token: str) -> None:
        """Listen on a port of its own choice."""
        self._token = token
        self._server = socket.create_server((address, 0))
        self.address = f"{address}:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Stop listening for clients."""
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
                received, _ = framing.receive(peer)
                greeting = read_greeting(HeartbeatGreeting, received)
                if isinstance(greeting, Malformed):
                    log.warning("message.refused", type=greeting.type, why=greeting.why)
                    return
                if not hmac.compare_digest(greeting.token.encode(), self._token.encode()):
                    return
                while True:
                    peer.sendall(b".")
                    pause.wait(BEAT_S)
            except (OSError, EOFError, ValueError):
                return  # the client has gone


class Heartbeat:
    """Follows one node's heartbeat, on a thread of its own, until closed."""

    def __init__(self, address: str, token: str, limit_s: float) -> None:
        """Connect in the background."""
        self._address, self._token, self._limit_s = address, token, limit_s
        self._gaps: deque[float] = deque(maxlen=300)
        self._heard_at = _now()
        self._has_ended = False
        self._is_closed = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def is_lost(self) -> bool:
        """Whether the node's agent has ended, or has been silent for too long."""
        return self._has_ended or _now() - self._heard_at > self.limit_s

    @property
    def has_ended(self) -> bool:
        """Whether the agent has ended: its port refused a connection."""
        return self._has_ended

    @property
    def limit_s(self) -> float:
        """Seconds of silence allowed: the given limit, or more where gaps were irregular."""
        if len(self._gaps) < MIN_GAPS:
            return max(self._limit_s, DIAL_S * 2)
        ordered = sorted(self._gaps)
        return max(self._limit_s, FACTOR * ordered[int(0.99 * (len(ordered) - 1))])

    def close(self) -> None:
        """Stop following the heartbeat."""
        self._is_closed.set()

    def _listen(self) -> None:
        while not self._is_closed.is_set():
            try:
                with self._dial() as stream:
                    self._follow(stream)
            except ConnectionRefusedError:
                self._has_ended = True
            except ConnectionResetError:
                self._is_closed.wait(RESET_S)  # the agent is ending: the next connection is refused
            except OSError:
                self._is_closed.wait(BEAT_S)  # silence is what counts
            if self._has_ended:
                self._is_closed.wait(DIAL_S)  # it may come back

    def _dial(self) -> socket.socket:
        host, _, port = self._address.rpartition(":")
        stream = socket.create_connection((host, int(port)), timeout=DIAL_S)
        framing.send_message(stream, HeartbeatGreeting(token=self._token))
        return stream

    def _follow(self, stream: socket.socket) -> None:
        stream.settimeout(1.0)
        while not self._is_closed.is_set():
            try:
                beat = stream.recv(64)
            except TimeoutError:
                continue
            if not beat:
                return  # broken off: reconnect, and be refused if the agent has ended
            now = _now()
            self._gaps.append(now - self._heard_at)
            self._heard_at, self._has_ended = now, False


def _now() -> float:
    return time.monotonic()  # noqa: TID251 - an edge owns its clock
