"""The OpenAI-compatible data plane: checks the key, picks a replica, passes bytes, counts tokens.

It parses only what it routes on and the usage it bills by. relay.py has one request's way.
"""

import asyncio
import itertools
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from weakref import WeakSet

import orjson

from karez.core.ports import Clock
from karez.core.routing import GatewayKey, GatewayLoad, ReplicaLoad, Route, Table
from karez.serving.address_ranges import caller_address
from karez.serving.admission import Admission, Elsewhere
from karez.serving.answers import JSON, Refusal, revoked
from karez.serving.call_book import CallBook
from karez.serving.call_terms import terms_of
from karez.serving.forced_tools import force_tools
from karez.serving.guards import check_request
from karez.serving.http_connection import HttpConnection
from karez.serving.http_request import Caller, Exchange, Request
from karez.serving.judged_exchange import JudgedExchange
from karez.serving.judges import judges_of
from karez.serving.model_call import ModelCall, model_row, parse
from karez.serving.passage import Passage, take_body
from karez.serving.paths import PUBLIC, check_path
from karez.serving.relay import Relay
from karez.serving.relay_counts import RelayCounts
from karez.serving.replica_pool import ReplicaPool
from karez.serving.rows import HELD, OpenRows, own_rows
from karez.serving.stream_log import CHAT

MAX_CONNECTIONS = 4096
SWEEP_S = 1.0
"""Seconds between two looks for connections that are late or idle."""
LOOK_S = 0.01
"""Seconds between two looks for slots that other processes have given up."""
PROMETHEUS = b"text/plain; version=0.0.4"


@dataclass(slots=True, kw_only=True, eq=False)
class Gateway:
    """What answers the requests of all connections of one process."""

    book: CallBook
    clock: Clock
    find_key: Callable[[str, Table], GatewayKey | None]
    """Finds the valid key of a text."""
    engine_key: str
    proxies: Sequence[str] = ()
    """Ranges of addresses whose `x-forwarded-for` counts."""
    connections: set[HttpConnection] = field(default_factory=set)
    counts: RelayCounts = field(default_factory=RelayCounts)
    process: int = 0
    processes: int = 1
    """Which process of the gateway this is, the first of which is 0, and how many it has."""
    open_rows: OpenRows = own_rows
    add_others: Callable[[bytes], bytes] = bytes
    """Adds the metrics of the other processes to those of this one."""
    admission: Admission = field(init=False)
    control: str = ""
    """URL of control's API for OpenAI's clients."""
    relays: set[Relay] = field(default_factory=set)
    """Requests on their way to replicas."""
    passages: WeakSet[Request] = field(default_factory=WeakSet)
    """Requests on their way to control."""
    _pools: dict[str, ReplicaPool] = field(default_factory=dict)
    """URL of a replica -> connections to it."""
    _prefix: str = field(default_factory=lambda: secrets.token_hex(6))
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _ended: list[tuple[Relay, Callable[[], None] | None]] = field(default_factory=list)
    """Requests, and what ends their answers once they are recorded."""
    _loop: asyncio.AbstractEventLoop | None = None
    _sweeping: asyncio.TimerHandle | None = None
    _looking: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self.admission = Admission(find_key=self.find_key, open_rows=self.open_rows)

    @property
    def table(self) -> Table:
        """The keys and routes of now."""
        return self.admission.table

    @table.setter
    def table(self, table: Table) -> None:
        self.admission.table = table
        valid = {key.id for key in table.keys}
        services = {(route.project, route.service) for route in table.routes}
        for relay in list(self.relays):
            if relay.call.key.id not in valid:
                relay.give_up(revoked())
            elif relay.waits_for is not None and relay.waits_for not in services:
                relay.give_up(Refusal(404, "not_found_error", "The service was deleted."))

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that serves."""
        assert self._loop is not None
        return self._loop

    async def listen(self, host: str, port: int) -> asyncio.Server:
        """Begin to listen; the server's sockets tell the port. Raises OSError."""
        loop = self._loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: HttpConnection(self, self.connections, loop),
            host,
            port,
            backlog=MAX_CONNECTIONS,
            reuse_port=self.processes > 1,
        )
        self._sweeping = loop.call_later(SWEEP_S, self._sweep)
        if self.processes > 1:
            self._look()
        return server

    async def close(self, *, within_s: float) -> None:
        """Close all connections, once the answers that have begun are whole or time is up."""
        deadline = self.loop.time() + within_s
        while any([one.close_if_idle() for one in self.connections]):
            if self.loop.time() > deadline:
                break
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.abort()
        for pool in self._pools.values():
            pool.close_idle(older_than_s=0)
        for timer in (self._sweeping, self._looking):
            if timer is not None:
                timer.cancel()
        await asyncio.sleep(0)

    def check(self, request: Request) -> None:
        """Look at a request whose body has not been read. Raises Refusal."""
        path = request.path
        if self.proxies:
            forwarded = request.headers.get(b"x-forwarded-for", b"").decode("latin-1")
            request.address = caller_address(request.address, forwarded, self.proxies)
        is_passed = check_path(request)
        if len(self.connections) > MAX_CONNECTIONS and path != "/health":
            raise Refusal(503, "service_unavailable_error", "There are too many connections.", 1)
        if path not in PUBLIC:
            request.key = self.admission.key(request.headers, request.address)
        if is_passed:
            take_body(request, self.passages)

    def begin(self, request: Request, connection: HttpConnection) -> Exchange | None:
        """Begin to answer a request. Raises Refusal."""
        if request.path == "/health":
            told = {"status": "ok", "services": len(self.table.routes)}
            connection.answer(200, JSON, orjson.dumps(told))
            return None
        if request.path == "/metrics":
            connection.answer(200, PROMETHEUS, self.add_others(self.metrics()))
            return None
        assert request.key is not None
        key = self.admission.current(request.key)
        if request.spool is not None:
            passage = Passage(request, connection, self.control, self.passages, self.counts)
            passage.start(self.loop)
            return passage
        if request.path == "/v1/models":
            rows = [model_row(route) for route in self.table.visible(key)]
            connection.answer(200, JSON, orjson.dumps({"object": "list", "data": rows}))
            return None
        body = parse(request.body)
        route = self.admission.route(key, body["model"])
        call = ModelCall(
            key=key,
            path=request.path,
            route=route,
            terms=terms_of(request.headers, body, key),
            found=check_request(route, body, len(request.body), self.counts),
            is_tool_call=request.path == CHAT and force_tools(body, route),
            body=body,
            size=len(request.body),
            at=self.clock.now(),
            asked=body["model"],
            address=request.address,
        )
        if judges_of(route):
            return JudgedExchange(self, connection, request, call).open()
        return self.begin_relay(call, self.admit(call), connection)

    def begin_relay(self, call: ModelCall, admitted: Elsewhere, caller: Caller) -> Relay:
        """Send a call that was admitted to a replica, whose answer a caller hears."""
        ident = f"call-{self._prefix}{next(self._numbers):x}"
        relay = Relay(self, caller, call, admitted, ident)
        self.relays.add(relay)
        try:
            relay.start()
        except BaseException:
            relay.gone()
            raise
        return relay

    def now(self) -> float:
        """The time, in UTC epoch seconds."""
        return self.clock.now()

    def service(self, project: str, name: str) -> Route | None:
        """The route of a service; None: there is none."""
        for route in self.table.routes:
            if (route.project, route.service) == (project, name):
                return route
        return None

    def admit(self, call: ModelCall) -> Elsewhere:
        """Admit a call. Raises Refusal."""
        return self.admission.admit(call)

    def give_back(self, call: ModelCall) -> None:
        """Count a call that was admitted, and goes nowhere, no more."""
        call.taken.settle(0, self.clock.now(), call.route)

    def metrics(self) -> bytes:
        """What this process counts, as Prometheus text."""
        return self.counts.metrics(self.inflight, self.admission.waiting)

    @property
    def inflight(self) -> int:
        """Requests that replicas work on."""
        return sum(pool.inflight for pool in self._pools.values())

    def load(self) -> GatewayLoad:
        """What control is told of the requests."""
        urls = {url for route in self.table.routes for url in route.urls}
        urls |= {url for url, pool in self._pools.items() if pool.inflight}
        replicas = tuple(
            ReplicaLoad(
                url=url,
                inflight=pool.inflight,
                answered=pool.answered,
                failed=pool.failed,
                answer_s=pool.answer_s,
            )
            for url in sorted(urls)
            for pool in (self.pool(url),)
        )
        return GatewayLoad(process=self.process, services=self.admission.load(), replicas=replicas)

    def pool(self, url: str) -> ReplicaPool:
        """The connections to a replica."""
        found = self._pools.get(url)
        if found is None:
            found = self._pools[url] = ReplicaPool(
                url=url,
                key=self.engine_key,
                loop=self.loop,
                rows=self.open_rows(("replica", url), HELD),
            )
        return found

    def current_route(self, route: Route) -> Route | None:
        """What has become of a route since; None: its service is gone."""
        return self.table.current(route)

    def admit_elsewhere(self, call: ModelCall, models: Sequence[str]) -> Elsewhere | None:
        """The first of these models that takes a request, and those that are left; None: none."""
        try:
            return self.admission.admit(call, models, self.clock.now())
        except Refusal:
            return None

    def settle(self, relay: Relay, answer: Callable[[], None] | None) -> None:
        """Record a call, and then end its answer; calls that end together are written at once."""
        self.relays.discard(relay)
        if self.relays and not self._ended:
            self.loop.call_soon(self._settle)
        self._ended.append((relay, answer))
        if not self.relays:  # nothing to wait for
            self._settle()

    def _settle(self) -> None:
        if not self._ended:
            return
        ended, self._ended = self._ended, []
        now = self.clock.now()
        try:
            self.book.add([relay.record(now) for relay, _ in ended], now)
        finally:
            for _, answer in ended:
                if answer is not None:
                    answer()

    def refused(self, request: Request, refusal: Refusal) -> None:
        """Note a request that was refused before it went anywhere."""
        self.counts.statuses[refusal.status] += 1
        self.book.refused(request, refusal, now=self.clock.now())

    def _look(self) -> None:
        """Send requests for which other processes have left slots."""
        self._looking = self.loop.call_later(LOOK_S, self._look)
        self.admission.look()

    def _sweep(self) -> None:
        """Drop callers that are late, and connections and pools that nobody uses."""
        self._sweeping = self.loop.call_later(SWEEP_S, self._sweep)
        now = self.loop.time()
        for connection in list(self.connections):
            connection.drop_if_late(now)
        for relay in list(self.relays):
            relay.check_silence(now)
        urls = {url for route in self.table.routes for url in route.urls}
        for url, pool in list(self._pools.items()):
            pool.close_idle()
            if url not in urls and not pool.inflight:
                del self._pools[url]
