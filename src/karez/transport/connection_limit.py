"""Bounds how many connections of one caller are open at once."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

K = TypeVar("K")


class ConnectionLimit(Generic[K]):
    """Counts what is open by caller, under a lock."""

    def __init__(self, most: int) -> None:
        """Let each caller have `most` open at once."""
        self._most = most
        self._lock = threading.Lock()
        self._open: Counter[K] = Counter()

    @contextmanager
    def one_of(self, caller: K) -> Iterator[bool]:
        """Whether a caller may have one more, which is open until the end of the block."""
        with self._lock:
            may = self._open[caller] < self._most
            self._open[caller] += may
        try:
            yield may
        finally:
            with self._lock:
                self._open[caller] -= may
                if not self._open[caller]:
                    del self._open[caller]
