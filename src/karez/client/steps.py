"""Steps of the client's methods, without I/O: one source for sync and async.

A method is written once, as a *flow*: a generator that yields steps and is sent their results.
A driver (client.drivers) performs the steps, by blocking or by awaiting.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from karez.client.calls import Call

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request; the result is its `httpx.Response`, or the `httpx.TransportError`."""

    call: Call[Any]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for some seconds; the result is the monotonic clock afterwards."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Work:
    """Call a function that may block, such as one that reads files; the result is its value."""

    function: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Emit(Generic[T_co]):
    """Yield one item to the stream's consumer; there is no result."""

    item: T_co


Step: TypeAlias = Send | Pause | Work
Flow: TypeAlias = Generator[Step, Any, T]
"""Generator of a method's steps; returns the method's value."""
Items: TypeAlias = Generator[Step | Emit[T], Any, None]
"""Generator of a streaming method's steps; emits the items."""


def pause(seconds: float = 0.0) -> Flow[float]:
    """Wait some seconds. Returns the monotonic clock afterwards."""
    at: float = yield Pause(seconds)
    return at


def work(function: Callable[[], T]) -> Flow[T]:
    """Call a function that may block. Returns the function's value."""
    value: T = yield Work(function)
    return value
