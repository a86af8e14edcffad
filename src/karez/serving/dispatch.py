"""Where one request goes: to a model, to a replica of it, to others where it is not answered."""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson

from karez.core.call_limits import CallClass
from karez.serving.admission import Admitted, Elsewhere
from karez.serving.answers import Refusal
from karez.serving.asking import Asking, Dispatched, Replicas
from karez.serving.attempts import Attempts
from karez.serving.call_record import CallRecord
from karez.serving.call_terms import INVALID
from karez.serving.model_call import ANSWER_LIMITS, limit_field
from karez.serving.prefix_affinity import blocks_of
from karez.serving.replica_connection import Listener, ReplicaConnection
from karez.serving.replica_pool import ReplicaPool

BROKEN = 502
AVOID_S = 2.0
"""How long a replica that failed is asked after the others."""


class Dispatch:
    """The way of one request."""

    data = b""
    """What replicas are asked."""
    _timer: asyncio.TimerHandle | None = None
    _is_held = _was_queued = False
    is_queued = False
    """Whether it waits for its turn."""

    def __init__(
        self,
        replicas: Replicas,
        relay: Dispatched,
        admitted: Elsewhere,
        request: dict[str, Any],
        told: CallRecord,
    ) -> None:
        """Dispatch a request, which is recorded in `told`, to a model that has admitted it."""
        self._replicas, self._relay, self._request, self._told = replicas, relay, request, told
        self.attempts, self.asking = Attempts(), Asking()
        first, self._models = admitted
        self._go_to(first)

    @property
    def priority(self) -> CallClass:
        """As a service_queue.Entrant."""
        return self._told.call.terms.priority

    @property
    def caller(self) -> str:
        """As a service_queue.Entrant."""
        return self._told.call.key.id

    def start(self) -> None:
        """Send the request to a replica, once it is its turn."""
        before = self._told.tries
        self.queue.enter(self)
        self.is_queued = self._told.tries == before and not self._relay.is_over

    def go(self) -> None:
        """Send the request to a replica: it is its turn."""
        if self.is_queued:
            self.is_queued, self._was_queued = False, True
            self._told.queued_until = self._replicas.clock.now()
        self._told.tries += 1
        try:
            self.data = orjson.dumps(self._request)
        except TypeError as error:  # read, but nested too deeply to be written
            self._relay.refuse(Refusal(400, INVALID, f"The body cannot be passed on: {error}."))
            return
        self._try()

    def _go_to(self, admitted: Admitted) -> None:
        """Ask a model, in the words that its replicas know."""
        route, request = admitted.route, self._request
        self.route, self.queue = route, admitted.queue
        request.update(route.told)
        if admitted.answer_tokens is not None:
            request[limit_field(self._told.call.path)] = admitted.answer_tokens
        hedge_s = self._told.call.terms.hedge_s
        self._hedge_s = route.hedge_s if hedge_s is None else hedge_s
        self._told.route = route

    def goes_to_another_model(self) -> bool:
        """Ask the next model that takes the request; returns whether there is one."""
        call = self._told.call
        if not self._models or not (found := self._replicas.admit_elsewhere(call, self._models)):
            return False
        self._replicas.counts.fallbacks += 1
        self.asking.end_second()
        self.asking.drop()
        admitted, self._models = found
        for name in ("lora", *ANSWER_LIMITS):  # those that are not its caller's
            if name not in call.body:
                self._request.pop(name, None)
        self.queue.leave(self)
        self._go_to(admitted)
        self.attempts, self._relay.status, self._told.sent_at = Attempts(), 0, 0.0
        self.start()
        return True

    def _try(self, *, afresh: bool = False) -> None:
        self._timer = None
        urls = self.route.urls
        if self.attempts.number or self._relay.is_started or self._was_queued:
            current = self._replicas.current_route(self.route)
            urls = () if current is None else current.urls
        if not urls:
            self._is_held = True
            self.failed("no replica is ready")
            return
        if self._is_held and not self._told.held_until:
            self._told.held_until = self._replicas.clock.now()
        pool = self._choose(urls)
        self.asking.begin(pool)
        self._told.replica = pool.url
        self._relay.begin_anew()
        if self._hedge_s is None or len(urls) == 1 or self._relay.is_started:
            self._send(pool, self._relay, afresh=afresh)
            return
        self._send(pool, self.asking.as_first(self._relay, pool), afresh=afresh)
        later = self._replicas.loop.call_later
        self.asking.wait(later(self._hedge_s, self._ask_another, urls))

    def _send(self, pool: ReplicaPool, listener: Listener, *, afresh: bool = False) -> None:
        ident = self._told.ident.encode()
        rest = b"x-request-id: %s\r\ncontent-length: %d\r\n\r\n" % (ident, len(self.data))
        head = pool.head(self._told.call.path)
        pool.send(head + rest + self.data, listener, afresh=afresh)

    def _choose(self, urls: Sequence[str]) -> ReplicaPool:
        if len(urls) == 1:
            return self._replicas.pool(urls[0])
        now = self._replicas.loop.time()
        pools = {url: self._replicas.pool(url) for url in urls}
        loads = {url: pool.load for url, pool in pools.items() if pool.avoid_until <= now}
        loads = loads or {url: pool.load for url, pool in pools.items()}
        named = self._told.call.terms.session
        session = f"{self.caller}/{named}" if named else ""
        return pools[self.queue.choose(blocks_of(self._request), loads, session)]

    def _ask_another(self, urls: Sequence[str]) -> None:
        """Ask another replica too, if one has a free slot: this one is slow to begin."""
        asked, now = self.asking.pool, self._replicas.loop.time()
        if self._relay.is_over or self._relay.status or asked is None:
            return
        others = [pool for pool in map(self._replicas.pool, urls) if pool is not asked]
        free = [one for one in others if one.load < self.route.parallel and one.avoid_until <= now]
        if free:
            pool = min(free, key=lambda one: one.load)
            self._replicas.counts.hedges += 1
            self._told.second = pool.url
            self._send(pool, self.asking.begin_second(self._relay, pool))

    def leave_to_second(self, *, is_failure: bool) -> bool:
        """Listen to the second replica in place of the first; returns whether there is one."""
        if not self.asking.has_second:
            return False
        pool = self.asking.drop()
        if pool is not None:
            self.saw(pool, is_failure=is_failure)
        self._replicas.counts.hedges_won += 1
        self._told.replica, self._told.second = self._told.second, self._told.replica
        return self.asking.go_on_with_second()

    def connected(self, connection: ReplicaConnection) -> None:
        """The request goes out now."""
        self.asking.connection, self._told.sent_at = connection, self._replicas.clock.now()

    def lost(self, trouble: str, *, is_stale: bool) -> None:
        """The replica was lost: go to another one, if the request may."""
        pool = self.asking.release()
        if pool is not None and not is_stale:
            pool.avoid_until = self._replicas.loop.time() + AVOID_S
            self.saw(pool, is_failure=True)
        if self.leave_to_second(is_failure=True):
            return
        self.asking.end_second()
        if is_stale:  # the replica had closed it before the request came
            self._try(afresh=True)
        else:
            self.failed(trouble)

    @property
    def has_others(self) -> bool:
        """Whether other replicas may be asked at once."""
        return self.attempts.number == 0 and len(self.route.urls) > 1

    def refused_for_now(self) -> None:
        """The replica takes no requests just now."""
        pool = self.asking.drop()
        if pool is not None:
            pool.avoid_until = self._replicas.loop.time() + AVOID_S
        self._relay.status = 0
        self.failed("it is not ready")

    def failed(self, trouble: str) -> None:
        """Go to another replica, if the request has brought nothing or another can go on."""
        if not self._relay.is_started:
            self._wait_for_another(trouble)
            return
        if self._relay.status and not self._relay.go_on_elsewhere():
            return
        self._relay.status = 0
        pause_s = self.attempts.takeover_pause_s(self._replicas.loop.time())
        if pause_s is None:
            self._relay.break_off(f"no replica could go on with it ({trouble})")
        else:
            self._later(pause_s)

    def _wait_for_another(self, trouble: str) -> None:
        """Try again, unless replicas have died of the request, or none was there for long."""
        was_taken, self._told.sent_at = self._told.sent_at > 0, 0.0
        pause_s = self.attempts.pause_s(
            was_taken=was_taken,
            now=self._replicas.loop.time(),
            has_fallback=bool(self._models),
        )
        if pause_s is not None:
            self._later(pause_s)
        elif not self.goes_to_another_model():
            name = self.route.service
            message = f"No replica of {name!r} answered ({trouble}); `karez services show {name}`."
            self._relay.refuse(Refusal(BROKEN, "api_connection_error", message))

    def _later(self, pause_s: float) -> None:
        self._timer = self._replicas.loop.call_later(pause_s, self._try)

    def saw(self, pool: ReplicaPool, *, is_failure: bool) -> None:
        """Count what a replica has answered."""
        now = self._replicas.clock.now()
        pool.saw(now - (self._told.sent_at or now), is_failure=is_failure)

    def forget_relay(self) -> None:
        """Let go of what refers to this, so that both are freed at once."""
        del self._relay

    def end(self) -> None:
        """Let go of everything: the request has ended."""
        self.asking.end_second()
        self.asking.release()
        self.queue.leave(self)
        if self._timer is not None:
            self._timer.cancel()
