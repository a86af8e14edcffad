"""Drivers that run flows (client.steps) over HTTP: one blocks, the other awaits."""

import asyncio
import io
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
from typing_extensions import override

from karez.client.address import Address
from karez.client.answers import may_repeat, read, request_of
from karez.client.calls import Call
from karez.client.steps import Emit, Flow, Items, Pause, Send, Step, pause
from karez.core.errors import Unreachable

T = TypeVar("T")
PREFIX = "/api/v1"
PATIENCE_S = 20.0
"""Seconds that a repeatable call waits for a control process that restarts."""
STRANGER_PATIENCE_S = 1.0
"""Seconds that a repeatable call waits for a cloud that has never answered."""
TIMEOUT_S = 60.0
"""Seconds that one request may take."""
_CHUNK = 1 << 20


class Driver(ABC):
    """Base of both drivers: the cloud's address, and the time it may stay silent."""

    address: Address

    def __init__(self, address: Address, patience_s: float) -> None:
        """`patience_s` 0 means 20 s for a cloud that runs here or has answered, else 1 s."""
        self.address = address
        self._patience_s = patience_s or (PATIENCE_S if address.is_up else STRANGER_PATIENCE_S)

    @abstractmethod
    def bind(self, flow: Callable[..., Flow[Any]]) -> Callable[..., Any]:
        """Turn a flow into a function that runs it with this driver."""

    @abstractmethod
    def bind_stream(self, items: Callable[..., Items[Any]]) -> Callable[..., Any]:
        """Turn a flow that emits items into a function that returns an iterator."""

    def ask(self, call: Call[T]) -> Flow[T]:
        """Send a call; repeat a repeatable one until it is answered. Raises the API's errors."""
        deadline = (yield from pause()) + self._patience_s
        while True:
            answer: httpx.Response | httpx.TransportError = yield Send(call)
            if isinstance(answer, httpx.Response):
                self._patience_s = max(self._patience_s, PATIENCE_S)
                return read(call, answer)
            if (yield from pause()) > deadline or not may_repeat(call):
                raise Unreachable(what_is_it="karez", address=self.address.url) from answer
            yield from pause(0.2)


class BlockingDriver(Driver):
    """Runs the steps of flows one after the other in the caller's thread."""

    _http: httpx.Client

    def run(self, flow: Flow[T]) -> T:
        """Run a flow and return its value."""
        result: Any = None
        while True:
            try:
                step = flow.send(result)
            except StopIteration as end:
                value: T = end.value
                return value
            result = self._perform(step)

    def stream(self, items: Items[T]) -> Iterator[T]:
        """Run a flow and yield its items as they are emitted."""
        result: Any = None
        while True:
            try:
                step = items.send(result)
            except StopIteration:
                return
            if isinstance(step, Emit):
                result = None
                yield step.item
            else:
                result = self._perform(step)

    @override
    def bind(self, flow: Callable[..., Flow[Any]]) -> Callable[..., Any]:
        return lambda *args, **named: self.run(flow(*args, **named))

    @override
    def bind_stream(self, items: Callable[..., Items[Any]]) -> Callable[..., Any]:
        return lambda *args, **named: self.stream(items(*args, **named))

    def _perform(self, step: Step) -> object:
        if isinstance(step, Send):
            return self._send(step.call)
        if isinstance(step, Pause):
            if step.seconds:
                time.sleep(step.seconds)  # noqa: TID251 - the client's own clock
            return time.monotonic()  # noqa: TID251 - the client's own clock
        return step.function()

    def _send(self, call: Call[Any]) -> httpx.Response | httpx.TransportError:
        request = request_of(call, self.address.key)
        if call.content is not None:
            request["content"] = _chunks(call.content, call.sent)
        try:
            if call.save is None:
                return self._http.request(call.method, call.path, **request)
            with self._http.stream(call.method, call.path, **request) as answer:
                if answer.is_error:
                    answer.read()
                    return answer
                with call.save.open("wb") as file:
                    for chunk in answer.iter_raw():
                        file.write(chunk)
                return answer
        except httpx.TransportError as error:
            return error


class AsyncDriver(Driver):
    """Runs the steps of flows on asyncio's event loop; blocking work goes to a thread."""

    _http: httpx.AsyncClient

    async def run(self, flow: Flow[T]) -> T:
        """Run a flow and return its value."""
        result: Any = None
        while True:
            try:
                step = flow.send(result)
            except StopIteration as end:
                value: T = end.value
                return value
            result = await self._perform(step)

    async def stream(self, items: Items[T]) -> AsyncIterator[T]:
        """Run a flow and yield its items as they are emitted."""
        result: Any = None
        while True:
            try:
                step = items.send(result)
            except StopIteration:
                return
            if isinstance(step, Emit):
                result = None
                yield step.item
            else:
                result = await self._perform(step)

    @override
    def bind(self, flow: Callable[..., Flow[Any]]) -> Callable[..., Any]:
        async def method(*args: Any, **named: Any) -> Any:
            return await self.run(flow(*args, **named))

        return method

    @override
    def bind_stream(self, items: Callable[..., Items[Any]]) -> Callable[..., Any]:
        return lambda *args, **named: self.stream(items(*args, **named))

    async def _perform(self, step: Step) -> object:
        if isinstance(step, Send):
            return await self._send(step.call)
        if isinstance(step, Pause):
            if step.seconds:
                await asyncio.sleep(step.seconds)
            return time.monotonic()  # noqa: TID251 - the client's own clock
        return await asyncio.to_thread(step.function)

    async def _send(self, call: Call[Any]) -> httpx.Response | httpx.TransportError:
        request = request_of(call, self.address.key)
        if call.content is not None:
            request["content"] = _async_chunks(call.content, call.sent)
        try:
            if call.save is None:
                return await self._http.request(call.method, call.path, **request)
            async with self._http.stream(call.method, call.path, **request) as answer:
                if answer.is_error:
                    await answer.aread()
                    return answer
                with await asyncio.to_thread(call.save.open, "wb") as file:
                    async for chunk in answer.aiter_raw():
                        await asyncio.to_thread(file.write, chunk)
                return answer
        except httpx.TransportError as error:
            return error


def _chunks(content: Path | bytes, sent: Callable[[int], None] | None) -> Iterator[bytes]:
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
            if sent is not None:
                sent(len(chunk))


async def _async_chunks(
    content: Path | bytes, sent: Callable[[int], None] | None
) -> AsyncIterator[bytes]:
    chunks = _chunks(content, sent)
    while chunk := await asyncio.to_thread(next, chunks, b""):
        yield chunk
