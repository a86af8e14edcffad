"""Follows the heartbeats of any number of nodes, on one thread; see drivers.steward.heartbeat."""

import asyncio
import threading
import time
from collections import deque

import uvloop
from typing_extensions import override

from karez.core.messages.greetings import HeartbeatGreeting
from karez.drivers.steward.heartbeat import BEAT_S
from karez.transport import framing

FACTOR = 5.0
"""A gap counts as silence from this multiple of the 99th percentile of earlier gaps."""
MIN_GAPS = 20
"""Gaps that have to be measured before the limit adapts to them; and how often it does."""
RESET_S = 0.01
DIAL_S = 0.5
"""Seconds to try to reconnect to a heartbeat that broke off."""


class Heartbeat(asyncio.Protocol):
    """The heartbeat of one node, followed until closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, address: str, limit_s: float) -> None:
        """Hear nothing yet; `HeartbeatListener.follow` makes one."""
        self._loop = loop
        self._address, self._given_s = address, limit_s
        self._gaps: deque[float] = deque(maxlen=300)
        self._gap_count = 0
        self._allowed_s = max(limit_s, DIAL_S * 2)
        self._heard_at = _now()
        self._has_ended = False
        self._is_closed = False
        self._transport: asyncio.BaseTransport | None = None
        self._broke: asyncio.Future[None] | None = None

    def is_lost(self) -> bool:
        """Whether the node's agent has ended, or has been silent for too long."""
        return self._has_ended or _now() - self._heard_at > self._allowed_s

    @property
    def has_ended(self) -> bool:
        """Whether the agent has ended: its port refused a connection."""
        return self._has_ended

    def close(self) -> None:
        """Stop following the heartbeat. Any thread may call it."""
        self._is_closed = True
        self._loop.call_soon_threadsafe(self._break_off)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        now = _now()
        self._gaps.append(now - self._heard_at)
        self._heard_at, self._has_ended = now, False
        self._gap_count += 1
        if self._gap_count % MIN_GAPS == 0:
            ordered = sorted(self._gaps)
            typical_s = ordered[int(0.99 * (len(ordered) - 1))]
            self._allowed_s = max(self._given_s, FACTOR * typical_s)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        if self._broke is not None and not self._broke.done():
            self._broke.set_result(None)

    async def keep(self, greeting: bytes) -> None:
        """Connect again and again until closed."""
        while not self._is_closed:
            try:
                await self._until_broken(greeting)
                await asyncio.sleep(RESET_S)  # if the agent is ending, the next one is refused
            except ConnectionRefusedError:
                self._has_ended = True
                await asyncio.sleep(DIAL_S)  # it may come back
            except (OSError, TimeoutError):
                await asyncio.sleep(BEAT_S)  # silence is what counts

    async def _until_broken(self, greeting: bytes) -> None:
        host, _, port = self._address.rpartition(":")
        self._broke = self._loop.create_future()
        connecting = self._loop.create_connection(lambda: self, host, int(port))
        transport, _ = await asyncio.wait_for(connecting, DIAL_S)
        transport.write(greeting)
        if self._is_closed:
            transport.close()
        await self._broke

    def _break_off(self) -> None:
        if self._transport is not None:
            self._transport.close()


class HeartbeatListener:
    """One thread that hears all heartbeats."""

    def __init__(self, token: str, limit_s: float) -> None:
        """Start the thread; `limit_s` seconds of silence are allowed at least."""
        self._greeting = framing.frame_of(HeartbeatGreeting(token=token))
        self._limit_s = limit_s
        self._loop = uvloop.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="heartbeats", daemon=True).start()

    def follow(self, address: str) -> Heartbeat:
        """Follow the heartbeat at host:port; connects in the background."""
        heartbeat = Heartbeat(self._loop, address, self._limit_s)
        asyncio.run_coroutine_threadsafe(heartbeat.keep(self._greeting), self._loop)
        return heartbeat

    def close(self) -> None:
        """End the thread; heartbeats that are still followed count as silent from now on."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)

    async def _end(self) -> None:
        others = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._loop.stop()


def _now() -> float:
    return time.monotonic()  # noqa: TID251 - an edge owns its clock
