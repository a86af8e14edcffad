"""Keeps as many replicas of each service as it needs, and writes what it has become by them."""

from collections.abc import Sequence

import structlog

from karez.core.services import Replica, Service
from karez.core.stores.store import Store
from karez.core.workloads import LIVE, State, WorkloadId
from karez.scheduling.autoscaling import wanted_replicas
from karez.serving.replica_plan import (
    FAILED_PAUSE_S,
    ReplicaPlan,
    plan_replicas,
    undo,
)
from karez.serving.service_loads import ServiceLoads

log = structlog.get_logger()
MOST_START_S = 600.0
"""Longest time to start that room is kept for; the rest of it was a wait for devices."""


def keep_replicas(store: Store, loads: ServiceLoads, now: float) -> bool:
    """Look at every service once; returns whether replicas were queued or let go of.

    `now` in UTC epoch seconds.
    """
    services = store.workloads.services(projects=None, states=tuple(LIVE))
    by_service: dict[WorkloadId, list[Replica]] = {}
    for one in store.replicas.live(ended_since=now - FAILED_PAUSE_S):
        by_service.setdefault(one.service, []).append(one)
    has_changed = False
    for service in services:
        plan = _plan(service, by_service.pop(service.id, []), loads, now)
        if plan.undone and (last := store.replicas.last_started(service.id, service.spec)):
            spec = last.spec.as_many_as(service.spec)
            store.replicas.set_spec(service, spec, undo(service, plan), at=now)
            log.warning("service.update-undone", service=service.id, why=plan.undone)
            has_changed = True
        else:
            has_changed |= _carry_out(store, service, plan, now)
    for left in by_service.values():  # their service has ended
        has_changed |= _let_go(store, [one.id for one in left if one.state in LIVE], now)
    return has_changed


def _plan(
    service: Service, replicas: Sequence[Replica], loads: ServiceLoads, now: float
) -> ReplicaPlan:
    spec = service.spec
    current = sum(one.state in LIVE and one.state != State.STOPPING for one in replicas)
    if not replicas and service.started_at is None:
        current = spec.replicas
    if service.status.progress is not None:  # an update has one more meanwhile
        current = service.status.progress.of
    demand = loads.demand(spec.project, spec.name, _starts_s(replicas))
    wanted = wanted_replicas(spec, demand, current=current, now=now)
    return plan_replicas(service, replicas, wanted=wanted, loads=loads.replicas, now=now)


def _starts_s(replicas: Sequence[Replica]) -> float | None:
    """The median time that replicas took to be ready, of which a wait for devices is a part."""
    took = sorted(one.started_at - one.created_at for one in replicas if one.started_at is not None)
    return min(MOST_START_S, took[len(took) // 2]) if took else None


def _carry_out(store: Store, service: Service, plan: ReplicaPlan, now: float) -> bool:
    if plan.start:
        made = store.replicas.add(service, plan.start, now=now)
        log.info("service.scaled-up", service=service.id, replicas=[one.id for one in made])
    if plan.stop:
        log.info("service.scaled-down", service=service.id, replicas=plan.stop)
    has_stopped = _let_go(store, plan.stop, now)
    if (plan.state, plan.status) != (service.state, service.status):
        store.replicas.note_service(service, plan.state, plan.status, at=now)
    return plan.start > 0 or has_stopped


def _let_go(store: Store, idents: Sequence[WorkloadId], now: float) -> bool:
    for ident in idents:
        store.workloads.request_stop(ident, at=now)
    return bool(idents)
