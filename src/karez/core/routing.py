"""Routing table of the gateway, as control sends it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from karez.core.call_limits import NO_CALL_LIMITS, NO_MINUTE_LIMITS, CallLimits, MinuteLimits
from karez.core.engines import Task
from karez.core.guardrails import Guardrail
from karez.core.identity import EVERYWHERE, Role
from karez.core.prices import FREE, Price


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayKey:
    """A key that may call models."""

    id: str
    project: str
    role: Role
    digest: str
    calls: CallLimits = NO_CALL_LIMITS
    parent: str = ""
    """Id of the key whose limits it shares and whose calls its own are; empty: its own."""

    @property
    def counts_as(self) -> str:
        """Id of the key that its calls are counted and billed with."""
        return self.parent or self.id

    def may_call(self, route: "Route") -> bool:
        """Whether the key sees a service and is made for it."""
        if self.project not in (EVERYWHERE, route.project):
            return False
        models = self.calls.models
        return not models or route.service in models or route.full_name in models


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A service and the URLs of its ready replicas."""

    service: str
    project: str
    urls: tuple[str, ...]
    since: float = 0.0
    parallel: int = 4
    """Requests that a replica answers at once; more wait in it."""
    stopped: str = ""
    """Why it takes no more requests; empty: it does."""
    task: Task = Task.GENERATE
    base: str = ""
    """The service whose replicas answer, of a route to an adapter; empty: of its own name."""
    scales: tuple[float, ...] = ()
    """How much of each adapter is in its answers, for engines that are told by number."""
    fallbacks: tuple[str, ...] = ()
    hedge_s: float | None = None
    first_token_s: float | None = None
    """As in a ServiceSpec."""
    price: Price = FREE
    calls: MinuteLimits = NO_MINUTE_LIMITS
    """Of all callers of the service together, its adapters included."""
    project_calls: MinuteLimits = NO_MINUTE_LIMITS
    """Of all callers of all services of its project together."""
    has_schemas: bool = True
    forces_tools: bool = False
    """What its engine can do, as in core.engines.Capabilities."""
    guardrails: tuple[Guardrail, ...] = ()
    """Of its project."""

    @property
    def told(self) -> Mapping[str, Any]:
        """Fields by which an engine, which knows no projects, is told who answers."""
        lora = [{"id": number, "scale": scale} for number, scale in enumerate(self.scales)]
        return {"model": self.service, "lora": lora} if lora else {"model": self.service}

    @property
    def queue(self) -> tuple[str, str]:
        """(project, service) of the replicas."""
        return self.project, self.base or self.service

    @property
    def full_name(self) -> str:
        """The name by which a key of all projects calls it."""
        return f"{self.project}/{self.service}"

    @property
    def slots(self) -> int:
        """Requests that all replicas answer at once."""
        return self.parallel * len(self.urls)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLoad:
    """Requests of a service at the gateway, as it reports them."""

    service: str
    project: str
    inflight: int
    """Requests that are answered or wait for that; those that are offline only count while no
    replica is ready."""
    slots: int
    """Requests that are answered at once."""
    refused: int = 0
    """Requests that were refused since the gateway started, because too many waited."""
    admitted: int = 0
    """Requests that were not, since then."""
    begun: int = 0
    """Answers that have begun since then."""
    late: int = 0
    """Those of them that began later than the service's target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLoad:
    """Requests of a replica that the gateway may ask, or that still works on some."""

    url: str
    inflight: int
    answered: int = 0
    """Requests that have ended there since the gateway knows the replica."""
    failed: int = 0
    """Those that it lost, or answered with a status of 500 or more."""
    answer_s: float = 0.0
    """Seconds that all of them took."""

    @property
    def errors(self) -> float:
        """Part of the answers that were errors."""
        return self.failed / self.answered if self.answered else 0.0

    @property
    def mean_s(self) -> float:
        """Mean seconds of an answer."""
        return self.answer_s / self.answered if self.answered else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayLoad:
    """What a process of the gateway reports: every service and replica that it knows."""

    process: int = 0
    """Which of its processes reports."""
    services: tuple[ServiceLoad, ...] = ()
    replicas: tuple[ReplicaLoad, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Keys and routes of the gateway, which keeps using the last table while control is away."""

    keys: tuple[GatewayKey, ...] = ()
    routes: tuple[Route, ...] = ()

    def visible(self, key: GatewayKey) -> tuple[Route, ...]:
        """List the services that a key may call."""
        return tuple(route for route in self.routes if key.may_call(route))

    def named(self, key: GatewayKey, model: str) -> tuple[Route, ...]:
        """The services that a key means by NAME or PROJECT/NAME: one, unless it sees several."""
        visible = self.visible(key)
        named = tuple(route for route in visible if route.service == model)
        return named or tuple(route for route in visible if route.full_name == model)

    def current(self, route: Route) -> Route | None:
        """What has become of a route since; None: its service is gone."""
        for one in self.routes:
            if (one.project, one.service) == (route.project, route.service):
                return one
        return None
