"""The two streams of a tunnel: bytes that wait between a file descriptor and its far end."""

import os
import select
import threading
from collections.abc import Callable

from karez.core.tunnels import MAX_PIECE, WAIT_S

WAITING_BYTES = 4 * MAX_PIECE
"""Bytes that wait in a tunnel before its writer has to."""
JOIN_S = 5.0
_LOOK_S = 1.0
_CHUNK = 1 << 16


class TunnelStreams:
    """Output of a file descriptor until it is read, and input until it is written."""

    def __init__(self, output: int, give: int, finish: Callable[[], None]) -> None:
        """Start both directions.

        Args:
            output: Descriptor that is read; -1: none.
            give: Descriptor that input is written to; -1: none.
            finish: Called once, when the last input was written.
        """
        self._output, self._give, self._finish = output, give, finish
        self._changed = threading.Condition()
        self._waiting = bytearray()
        self._base = 0
        """Offset of the first byte of `_waiting`."""
        self._input = bytearray()
        self._taken = 0
        """Offset of the input that comes next."""
        self._is_last = self._is_closed = False
        self._is_drained = output < 0
        self._is_awaited_by_reader = self._is_awaited_by_writer = False
        self._idle_s = 0.0
        self._threads = [
            threading.Thread(target=run, daemon=True)
            for run in (self._read_output, self._write_input)
        ]
        for thread in self._threads:
            thread.start()

    def read(self, offset: int, is_over: threading.Event) -> tuple[bytes, int, bool]:
        """Bytes from an offset on, the next offset, and whether that is the end.

        Waits up to WAIT_S. Bytes before the offset are dropped. `is_over` is set once what serves
        the tunnel has ended.
        """

        def is_at_end() -> bool:
            return self._is_closed or (self._is_drained and is_over.is_set())

        with self._changed:
            self._idle_s = 0.0
            known = min(max(0, offset - self._base), len(self._waiting))
            del self._waiting[:known]
            self._base += known
            self._changed.notify_all()
            if not self._is_awaited_by_reader:  # as in `write`
                self._is_awaited_by_reader = True
                self._changed.wait_for(lambda: self._waiting or is_at_end(), WAIT_S)
                self._is_awaited_by_reader = False
            data = bytes(self._waiting[:MAX_PIECE])
            return data, self._base + len(data), not data and is_at_end()

    def write(self, offset: int, data: bytes, *, end: bool) -> int:
        """Take input that begins at an offset; returns the offset of what was not taken.

        Waits up to WAIT_S for room. Bytes that were taken before are left out.
        """
        with self._changed:
            self._idle_s = 0.0
            if not self._is_awaited_by_writer:  # one request waits, so that threads are left
                self._is_awaited_by_writer = True
                self._changed.wait_for(lambda: self._room() > 0 or self._is_closed, WAIT_S)
                self._is_awaited_by_writer = False
            fresh = memoryview(data)[max(0, self._taken - offset) :]
            taken = fresh[: max(0, self._room())]
            self._input += taken
            self._taken += len(taken)
            self._is_last = self._is_last or (end and len(taken) == len(fresh))
            self._changed.notify_all()
            return self._taken

    def wake(self) -> None:
        """Have readers look again: what serves the tunnel has ended."""
        with self._changed:
            self._changed.notify_all()

    def count_idle(self, seconds: float) -> float:
        """Add to the time since the other end was heard of, and return it."""
        with self._changed:
            self._idle_s += seconds
            return self._idle_s

    def close(self) -> None:
        """Give both directions up; the descriptors are closed by whoever opened them."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def join(self) -> None:
        """Wait until nobody uses the descriptors any more, once their far ends have ended."""
        for thread in self._threads:
            thread.join(JOIN_S)

    def _room(self) -> int:
        return WAITING_BYTES - len(self._input)

    def _read_output(self) -> None:
        while not self._is_drained and not self._is_closed:
            chunk = self._chunk()
            if chunk is None:
                continue
            with self._changed:
                self._waiting += chunk
                self._is_drained = not chunk
                self._changed.notify_all()
                self._changed.wait_for(
                    lambda: len(self._waiting) < WAITING_BYTES or self._is_closed
                )

    def _chunk(self) -> bytes | None:
        """Bytes; empty at the end; None: nothing has come yet."""
        try:
            if not select.select([self._output], [], [], _LOOK_S)[0]:
                return None
            return os.read(self._output, _CHUNK)
        except (OSError, ValueError):  # a terminal whose program has ended, or a closed descriptor
            return b""

    def _write_input(self) -> None:
        while (chunk := self._next_input()) is not None:
            rest = memoryview(chunk)
            while rest and not self._is_closed:
                try:
                    rest = rest[os.write(self._give, rest) :]
                except OSError:
                    break  # nobody reads any more: as for a pipe, the rest is lost
        if not self._is_closed:
            self._finish()

    def _next_input(self) -> bytes | None:
        """What is to be written; None: there is nothing more."""
        with self._changed:
            self._changed.wait_for(lambda: self._input or self._is_last or self._is_closed)
            if self._is_closed or not self._input:
                return None
            chunk = bytes(self._input[:_CHUNK])
            del self._input[:_CHUNK]
            self._changed.notify_all()
            return chunk
