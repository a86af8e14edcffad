"""Accepts the connections of processes on this node, and publishes their messages as events."""

import socket
import threading

from karez.drivers.steward.process_table import ProcessTable
from karez.transport import framing


class RankListener:
    """Listens on a Unix socket; each process introduces itself by its key."""

    def __init__(self, table: ProcessTable, path: str) -> None:
        """Listen at `path`, on a thread of its own."""
        self._table = table
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(path)
        self._server.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            stream, _ = self._server.accept()
            threading.Thread(target=self._serve, args=(stream,), daemon=True).start()

    def _serve(self, stream: socket.socket) -> None:
        try:
            hello, _ = framing.receive(stream)
            key = str(hello["key"])
            process = self._table.get(key)
            if process is None:
                stream.close()
                return
            process.stream.connect(stream)
            while True:
                message, _ = framing.receive(stream)
                self._table.publish(key, str(message.pop("type")), message)
        except (EOFError, OSError, KeyError, ValueError):
            stream.close()
