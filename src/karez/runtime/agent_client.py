"""The connection of a rank to its node agent (the steward)."""

import os
import queue
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

from karez.transport import framing


class AgentClient:
    """Messages to and from the node agent, which passes them on to the job controller.

    `on_message` gets each message at once, on the connection's own thread; then it is put into
    `inbox`.
    """

    def __init__(
        self, path: str, key: str, on_message: Callable[[Mapping[str, Any]], None]
    ) -> None:
        """Connect. Raises OSError if the node agent has gone."""
        self.inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._on_message = on_message
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
                self._on_message(message)
                self.inbox.put(message)
        except (EOFError, OSError):
            os._exit(70)  # without a node agent nobody may act for this rank (70: EX_SOFTWARE)
