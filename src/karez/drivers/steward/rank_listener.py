"""Accepts the connections of processes on this node, and publishes their reports as events."""

import hmac
import os
import socket
import struct
import threading
from contextlib import suppress

import structlog

from karez.core.messages.greetings import ProcessGreeting, Refusal, read_greeting
from karez.core.messages.reports import PROCESS_REPORTS
from karez.core.messages.wire import Malformed, content, decode, encode
from karez.drivers.steward.process_table import ProcessTable, TrackedProcess
from karez.transport import framing
from karez.transport.connection_limit import ConnectionLimit
from karez.transport.handshake import GREETING_BYTES, GREETING_S, within

REPORT_BYTES = 1 << 22
"""Largest report of a process: what a rank can restore, of thousands of departed ranks."""
MOST_CONNECTIONS = 1024
"""Open connections of one user, which is one project's where jobs are kept apart."""
PAUSE_S = 0.1
_EVERYBODY = 0o666
log = structlog.get_logger()


class RankListener:
    """Listens on a Unix socket; each process introduces itself by its key.

    What cannot be read is refused: the process is told why, and the node's log has a line.
    """

    def __init__(self, table: ProcessTable, path: str) -> None:
        """Listen at `path`, on a thread of its own."""
        self._table = table
        self._limit: ConnectionLimit[int] = ConnectionLimit(MOST_CONNECTIONS)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(path)
        os.chmod(path, _EVERYBODY)  # users of projects connect, each process with its token
        self._server.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        pause = threading.Event()
        while True:
            try:
                stream, _ = self._server.accept()
            except OSError as error:  # such as too many open files: it passes
                log.warning("connection.not-taken", why=str(error))
                pause.wait(PAUSE_S)
                continue
            threading.Thread(target=self._serve, args=(stream,), daemon=True).start()

    def _serve(self, stream: socket.socket) -> None:
        with stream, self._limit.one_of(_user_of(stream)) as may:
            try:
                if not may:
                    return
                process = self._greet(stream)
                if process is not None:
                    self._follow(stream, process)
            except ValueError as error:  # not a frame: where the next one begins is unknown
                _refuse(stream, Refusal(refused="frame", why=str(error)))
            except (EOFError, OSError):
                return  # the process has ended

    def _greet(self, stream: socket.socket) -> TrackedProcess | None:
        """The process that introduces itself; None: it is refused."""
        with within(stream, GREETING_S):
            received, _ = framing.receive(stream, head_limit=GREETING_BYTES, blob_limit=0)
        greeting = read_greeting(ProcessGreeting, received)
        if isinstance(greeting, Malformed):
            _refuse(stream, Refusal(refused=greeting.type, why=greeting.why))
            return None
        process = self._table.get(greeting.key)
        if process is None:
            why = f"no process {greeting.key!r} was started on this node"
            _refuse(stream, Refusal(refused=greeting.TYPE, why=why), key=greeting.key)
        elif not hmac.compare_digest(greeting.token.encode(), process.token.encode()):
            why = "this is not the token of that process"
            _refuse(stream, Refusal(refused=greeting.TYPE, why=why), key=greeting.key)
            return None
        return process

    def _follow(self, stream: socket.socket, process: TrackedProcess) -> None:
        key = process.spec.key
        process.stream.connect(stream)
        while True:
            received, _ = framing.receive(stream, head_limit=REPORT_BYTES, blob_limit=0)
            report = decode(PROCESS_REPORTS, received)
            if isinstance(report, Malformed):
                refusal = Refusal(refused=report.type, why=report.why)
                _log_refusal(refusal, key)
                process.stream.send(encode(refusal))
            else:
                self._table.publish(key, report.TYPE, content(received))


def _user_of(stream: socket.socket) -> int:
    """The user at the other end, by the kernel; see SO_PEERCRED in unix(7)."""
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3I", stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(user)


def _refuse(stream: socket.socket, refusal: Refusal, *, key: str = "") -> None:
    """Refuse a connection that nobody else writes to, and close it."""
    _log_refusal(refusal, key)
    with suppress(OSError):
        framing.send_message(stream, refusal)
    framing.close_after_refusal(stream)


def _log_refusal(refusal: Refusal, key: str) -> None:
    log.warning("message.refused", process=key, type=refusal.refused, why=refusal.why)
