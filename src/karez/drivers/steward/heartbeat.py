"""Heartbeat of a node: a byte ten times a second over a connection of its own.

Ray notices a silent node after 14 to 66 seconds by default; a gang cannot wait for that. Control
listens to the heartbeat of each node that has work: a closed connection means that the agent has
ended, and silence for about a second that the host or its network has failed.
"""

import hmac
import socket
import threading

import structlog

from karez.core.messages.greetings import HeartbeatGreeting, read_greeting
from karez.core.messages.wire import Malformed
from karez.transport import framing
from karez.transport.handshake import GREETING_BYTES

log = structlog.get_logger()

BEAT_S = 0.1


def heartbeat_token(secret: str) -> str:
    """The token for heartbeats, which is good for nothing else."""
    return hmac.new(secret.encode(), b"heartbeat", "sha256").hexdigest()


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
                received, _ = framing.receive(peer, head_limit=GREETING_BYTES, blob_limit=0)
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
