"""The replica that a request is at, and another that is asked too where that one is slow to begin.

Whichever answers first is listened to; the connection to the other is closed, so that it stops to
compute ("The Tail at Scale", Dean and Barroso, 2013).
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from typing_extensions import override

from karez.core.ports import Clock
from karez.core.routing import Route
from karez.serving.admission import Elsewhere
from karez.serving.answers import Refusal
from karez.serving.model_call import ModelCall
from karez.serving.relay_counts import RelayCounts
from karez.serving.replica_connection import Listener, ReplicaConnection
from karez.serving.replica_pool import ReplicaPool

ERROR = 400


class Asker(Listener, Protocol):
    """A request, which hears one replica."""

    def prefer(self, second: "Leg") -> None:
        """Listen to the second replica, which was first to answer."""

    def second_failed(self) -> None:
        """The second replica was lost, or has answered with an error."""


class Replicas(Protocol):
    """What a request is dispatched among: those of a gateway."""

    clock: Clock
    counts: RelayCounts

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that serves."""

    def pool(self, url: str) -> ReplicaPool:
        """The connections to a replica."""

    def current_route(self, route: Route) -> Route | None:
        """What has become of a route since; None: its service is gone."""

    def admit_elsewhere(self, call: ModelCall, models: Sequence[str]) -> Elsewhere | None:
        """The first of these models that takes a request, and those that are left; None: none."""


class Dispatched(Asker, Protocol):
    """A request, as seen from here."""

    status: int
    """Of the answer that has begun; 0: none has."""
    is_started: bool
    """Whether its caller has been sent the head of a stream."""
    is_over: bool

    def begin_anew(self) -> None:
        """Another replica is asked now."""

    def go_on_elsewhere(self) -> bool:
        """Prepare to go on with a stream at another replica; False: it has ended instead."""

    def break_off(self, why: str) -> None:
        """End a stream that no replica can go on with."""

    def refuse(self, refusal: Refusal) -> None:
        """End a request that nothing was answered to."""


class Leg(Listener):
    """One of two replicas that a request may be at; only one of them is listened to."""

    connection: ReplicaConnection | None = None
    _is_given_up = False

    def __init__(self, asker: Asker, pool: ReplicaPool, *, is_listened_to: bool) -> None:
        """Ask for a request."""
        self._asker, self.pool, self.is_listened_to = asker, pool, is_listened_to

    @override
    def connected(self, connection: ReplicaConnection) -> bool:
        if self._is_given_up:
            return False
        self.connection = connection
        return self._asker.connected(connection) if self.is_listened_to else True

    @override
    def heard_head(self, status: int, kind: bytes) -> None:
        if not self.is_listened_to:
            if status >= ERROR:
                self._asker.second_failed()
                return
            self._asker.prefer(self)
        self._asker.heard_head(status, kind)

    @override
    def heard_body(self, data: bytes) -> None:
        if self.is_listened_to and not self._is_given_up:
            self._asker.heard_body(data)

    @override
    def heard_end(self) -> None:
        if self.is_listened_to and not self._is_given_up:
            self._asker.heard_end()

    @override
    def lost(self, trouble: str, is_stale: bool) -> None:
        if self._is_given_up:
            return
        if self.is_listened_to:
            self._asker.lost(trouble, is_stale)
        else:
            self._asker.second_failed()

    def give_up(self) -> None:
        """Ask it no longer, even if its connection is still on its way."""
        self._is_given_up = True
        if self.connection is not None:
            self.connection.close()


class Asking:
    """Which replicas a request is at."""

    pool: ReplicaPool | None = None
    connection: ReplicaConnection | None = None
    _first: Leg | None = None
    """Of a request that may be at two."""
    _second: Leg | None = None
    _timer: asyncio.TimerHandle | None = None

    def begin(self, pool: ReplicaPool) -> None:
        """Be at a replica, whose connection comes later."""
        self.pool = pool
        pool.inflight += 1

    def as_first(self, asker: Asker, pool: ReplicaPool) -> Leg:
        """Listen to the replica as to one that another may be faster than."""
        self._first = Leg(asker, pool, is_listened_to=True)
        return self._first

    def wait(self, timer: asyncio.TimerHandle) -> None:
        """Keep the timer after which another replica is asked."""
        self._timer = timer

    def begin_second(self, asker: Asker, pool: ReplicaPool) -> Leg:
        """Be at another replica too."""
        self._second = Leg(asker, pool, is_listened_to=False)
        pool.inflight += 1
        return self._second

    def release(self) -> ReplicaPool | None:
        """Be at no first replica any more; returns which it was."""
        pool, self.pool, self.connection, self._first = self.pool, None, None, None
        if pool is not None:
            pool.inflight -= 1
        return pool

    def drop(self) -> ReplicaPool | None:
        """Close the connection to the first replica, which then stops to compute."""
        if self._first is not None:
            self._first.give_up()
        if self.connection is not None:
            self.connection.close()
        return self.release()

    def end_second(self) -> None:
        """Ask no other replica, or no longer."""
        timer, second = self._timer, self._second
        self._timer = self._second = None
        if timer is not None:
            timer.cancel()
        if second is not None:
            second.give_up()
            second.pool.inflight -= 1

    def go_on_with_second(self) -> bool:
        """Listen to the second replica, as the first was left; returns whether there is one."""
        second, self._second = self._second, None
        if second is None:
            return False
        second.is_listened_to = True
        self.pool, self.connection, self._first = second.pool, second.connection, second
        return True

    @property
    def has_second(self) -> bool:
        """Whether another replica is asked too."""
        return self._second is not None
