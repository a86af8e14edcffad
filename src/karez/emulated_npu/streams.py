"""Streams and events of the emulated device: work on another stream than the first may come late.

Work is done at the call, with one exception: a copy from the device to the host that was asked for
as non-blocking, on a stream that the program made, is done when something waits for it. No real
device is as late, so a program that does not wait where it must reads or keeps wrong data here.
"""

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch

from karez.emulated_npu.memory import NAME

_CURRENT = threading.local()
_STREAMS: "weakref.WeakSet[Stream]" = weakref.WeakSet()


class _Late:
    """A copy that is done once, when it is waited for."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work: Callable[[], object] | None = work
        self._lock = threading.Lock()

    def finish(self) -> None:
        with self._lock:
            work, self._work = self._work, None
            if work is not None:
                work()


class Stream:
    """A stream of the emulated device."""

    device_type, stream_id, priority = NAME, 0, 0

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Accept any device and any priority."""
        self._late: list[_Late] = []
        self._before: list[Any] = []
        _STREAMS.add(self)

    @property
    def device(self) -> torch.device:
        """The only device."""
        return torch.device(NAME, 0)

    def synchronize(self, *_: Any) -> None:
        """Finish what was put on this stream."""
        while self._late:
            self._late.pop(0).finish()

    def wait_stream(self, other: "Stream") -> None:
        """Have what follows here come after what was put on another stream."""
        other.synchronize()

    def wait_event(self, event: "Event") -> None:
        """Have what follows here come after an event."""
        event.synchronize()

    def query(self) -> bool:
        """Whether all work is done."""
        return not self._late

    def record_event(self, event: Any = None) -> Any:
        """Record an event, a new one by default."""
        recorded = event or Event()
        recorded.record(self)
        return recorded

    def put(self, work: Callable[[], object]) -> None:
        """Have work done when it is waited for."""
        self._late.append(_Late(work))

    def __enter__(self) -> "Stream":
        self._before.append(current_stream())
        _CURRENT.stream = self
        return self

    def __exit__(self, *_: object) -> None:
        _CURRENT.stream = self._before.pop()


class Event:
    """An event of the emulated device: an instant of the host's clock, and what came before it."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Accept any flags; the event is not recorded yet."""
        self._at = 0.0
        self._late: list[_Late] = []

    def record(self, stream: Any = None) -> None:
        """Record the present instant of a stream, by default the current one."""
        self._at = time.perf_counter()
        self._late = list((stream or current_stream())._late)

    def wait(self, *_: Any) -> None:
        """Have what follows come after the event."""
        self.synchronize()

    def synchronize(self) -> None:
        """Finish what came before the event."""
        for late in self._late:
            late.finish()
        self._late = []

    def query(self) -> bool:
        """Whether the event has passed."""
        return not self._late

    def elapsed_time(self, other: "Event") -> float:
        """Milliseconds to another event."""
        return (other._at - self._at) * 1e3


FIRST = Stream()
"""The default stream, on which all work is done at the call."""


def current_stream(_device: Any = None) -> Stream:
    """The stream of this thread."""
    found: Stream = getattr(_CURRENT, "stream", FIRST)
    return found


def stream_context(stream: Stream) -> Stream:
    """The context in which a stream is the current one: the stream itself."""
    return stream


def synchronize(_device: Any = None) -> None:
    """Finish what was put on any stream."""
    for stream in list(_STREAMS):
        stream.synchronize()


def put_late(work: Callable[[], object]) -> bool:
    """Have a copy done later, if the current stream is one that the program made."""
    stream = current_stream()
    if stream is FIRST:
        return False
    stream.put(work)
    return True


def keep_order() -> None:
    """Finish what the current stream has put off, before other work on it."""
    stream = current_stream()
    if stream is not FIRST:
        stream.synchronize()
