"""The table by which the gateway routes: keys and ready replicas."""

import math
from collections.abc import Iterator, Mapping

from karez.core.budgets import over_budget
from karez.core.engines import AdapterUse, Capabilities
from karez.core.identity import Project, Role
from karez.core.prices import Price, price_of
from karez.core.routing import GatewayKey, Route, Table
from karez.core.services import READY, Service
from karez.core.stores.store import Store
from karez.core.workloads import LIVE, WorkloadId

CALLER_ROLES = (Role.VIEWER, Role.MEMBER, Role.ADMIN)
"""Roles whose keys may call models."""


def build_gateway_table(store: Store, now: float, engines: Mapping[str, Capabilities]) -> Table:
    """Build the gateway's table from the store; `now` in UTC epoch seconds."""
    known = {key.id: key for key in store.access.keys() if key.is_valid(now)}
    keys = tuple(
        GatewayKey(
            id=key.id,
            project=key.project,
            role=key.role,
            digest=key.digest,
            calls=key.calls,
            parent=key.parent,
        )
        for key in known.values()
        if key.role in CALLER_ROLES and (not key.parent or key.parent in known)
    )
    urls: dict[WorkloadId, list[str]] = {}
    for replica in store.replicas.live(ended_since=math.inf):
        ready = [view.url for view in replica.status.ranks if view.state == READY]
        urls.setdefault(replica.service, []).extend(ready)
    prices = {price.model: price for price in store.usage.prices()}
    projects = {one.name: one for one in store.access.projects()}
    stopped = over_budget(store.usage, projects.values(), now)
    services = store.workloads.services(projects=None, states=tuple(LIVE))
    routes = [
        route
        for service in services
        for route in _routes(
            service,
            urls=tuple(urls.get(service.id, ())),
            stopped=_sentence(stopped.get(service.spec.project, "")),
            engine=engines.get(service.spec.engine),
            prices=prices,
            project=projects.get(service.spec.project) or Project(name=service.spec.project),
        )
    ]
    return Table(keys=keys, routes=tuple(routes))


def _routes(
    service: Service,
    *,
    urls: tuple[str, ...],
    stopped: str,
    engine: Capabilities | None,
    prices: Mapping[str, Price],
    project: Project,
) -> Iterator[Route]:
    """The route to a service, and one to each of its adapters."""
    spec = service.spec
    is_numbered = engine is not None and engine.adapters == AdapterUse.NUMBER
    names = ["", *(adapter.name for adapter in spec.adapters)]
    for name in names:
        scales = tuple(float(name == other) for other in names[1:]) if is_numbered else ()
        yield Route(
            service=name or spec.name,
            project=spec.project,
            urls=urls,
            since=service.created_at,
            parallel=spec.parallel,
            stopped=stopped,
            task=spec.task,
            base=spec.name if name else "",
            scales=scales,
            fallbacks=spec.fallbacks,
            hedge_s=spec.hedge_s,
            first_token_s=spec.first_token_s,
            price=price_of(prices, name or spec.name),
            guardrails=project.guardrails,
            calls=spec.calls,
            project_calls=project.limits.calls,
            has_schemas=engine is None or engine.has_schemas,
            forces_tools=engine is not None and engine.forces_tools,
        )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""
