"""The connection between the node agent and one process; messages wait until it is there."""

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from karez.transport import framing


class MessageStream:
    """Messages to one process."""

    def __init__(self) -> None:
        """Start without a connection."""
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._pending: list[Mapping[str, Any]] = []

    def connect(self, stream: socket.socket) -> None:
        """Use a connection, and send what waited for it. Raises OSError."""
        with self._lock:
            self._socket = stream
            for message in self._pending:
                framing.send(stream, message)
            self._pending.clear()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message, now or once the process has connected."""
        with self._lock:
            if self._socket is None:
                self._pending.append(message)
                return
            with suppress(OSError):  # the process has just died; its exit is on the way
                framing.send(self._socket, message)
