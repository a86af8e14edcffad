"""Writes snapshots whose tensors are still on their way from a device, on a thread of its own."""

import threading
from collections.abc import Callable
from queue import SimpleQueue

from karez.runtime.device_staging import StagedCopy

_Task = tuple[StagedCopy, Callable[[], None]]


class SnapshotWriter:
    """Writes one snapshot at a time, once its copies are complete."""

    def __init__(self) -> None:
        """Start no thread: it is started by the first snapshot."""
        self._tasks: SimpleQueue[_Task] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_idle = threading.Event()
        self._is_idle.set()
        self._copy: StagedCopy | None = None
        self._error: Exception | None = None

    def begin(self, copy: StagedCopy, write: Callable[[], None]) -> None:
        """Have `write` called when the copies are complete; nothing else may be under way."""
        self._is_idle.clear()
        self._copy = copy
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        self._tasks.put((copy, write))

    def is_idle(self) -> bool:
        """Whether everything is written. Raises the error of a write that failed."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._is_idle.is_set()

    def wait(self) -> None:
        """Wait until everything is written. Raises as `is_idle`."""
        self._is_idle.wait()
        self.is_idle()

    def hold_device(self) -> None:
        """Have the device's next changes come after copies that are under way."""
        if (copy := self._copy) is not None:  # the thread may forget it at any moment
            copy.hold_device()

    def cancel(self) -> None:
        """Give up copies that are under way: the device is about to be stopped."""
        if (copy := self._copy) is not None and not self._is_idle.is_set():
            copy.cancel()

    def _work(self) -> None:
        while True:
            copy, write = self._tasks.get()
            try:
                copy.use_device()
                if copy.finish():
                    write()
            except Exception as error:  # noqa: BLE001 - the training thread raises it
                self._error = error
            finally:
                self._copy = None
                self._is_idle.set()
