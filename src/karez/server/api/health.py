"""Health, readiness, metrics and the summary."""

from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

import karez
from karez.core.api_models import Summary
from karez.core.identity import Role
from karez.core.nodes import NodeState
from karez.core.units import MILLI
from karez.server.api.authorization import CloudDep, allow, public

router = APIRouter(tags=["health"])


@router.get("/health", **public())
async def health() -> dict[str, str]:
    """200 while the process lives."""
    return {"status": "ok"}


@router.get("/ready", **public())
def ready(request: Request, response: Response, cloud: CloudDep) -> dict[str, Any]:
    """200 once the store answers and a node is in the pool, else 503.

    `failing` counts the workloads whose controller failed within the last ten minutes.
    """
    cloud.store.ping()
    nodes = [n for n in cloud.store.pool.nodes() if n.state == NodeState.READY]
    fresh = bool(request.app.state.loops_alive()) and bool(nodes)
    response.status_code = 200 if fresh else 503
    failing = request.app.state.failing()
    return {"ready": fresh, "nodes": len(nodes), "failing": failing}


@router.get("/status", **allow(Role.VIEWER))
def summary(cloud: CloudDep) -> Summary:
    """Nodes, devices, workloads and addresses."""
    nodes = cloud.store.pool.nodes()
    states: dict[str, int] = {}
    devices: dict[str, int] = {}
    for node in nodes:
        states[node.state] = states.get(node.state, 0) + 1
        if node.state == NodeState.READY:
            for device in node.devices:
                devices[device.kind] = devices.get(device.kind, 0) + 1
    held: dict[str, float] = {}
    for allocation in cloud.store.workloads.allocations().values():
        for grant in allocation.grants:
            held[grant.kind] = held.get(grant.kind, 0.0) + grant.milli / MILLI
    counts = cloud.store.workloads.count_states()
    settings = cloud.settings
    return Summary(
        version=karez.__version__,
        nodes=states,
        devices=devices,
        held=held,
        jobs={state: n for (kind, state), n in counts.items() if kind == "job"},
        services={state: n for (kind, state), n in counts.items() if kind == "service"},
        gateway_url=f"http://{settings.host}:{settings.gateway_port}/v1",
        home=settings.home,
    )


@router.get("/metrics", **allow(Role.VIEWER))
def metrics(cloud: CloudDep) -> Response:
    """Prometheus text; scrape with a viewer's key as bearer token."""
    registry = CollectorRegistry()
    work = Gauge(
        "karez_workloads",
        "Workloads by kind (job, service) and state; `sort` is the old name of `kind`",
        ["kind", "sort", "state"],
        registry=registry,
    )
    for (kind, state), count in cloud.store.workloads.count_states().items():
        work.labels(kind=kind, sort=kind, state=state).set(count)
    held = Gauge("karez_devices_held", "Devices held", ["kind"], registry=registry)
    total = Gauge("karez_devices", "Devices of ready nodes", ["kind"], registry=registry)
    shown = summary(cloud)
    for kind, count in shown.devices.items():
        total.labels(kind=kind).set(count)
        held.labels(kind=kind).set(shown.held.get(kind, 0.0))
    nodes = Gauge("karez_nodes", "Nodes by state", ["state"], registry=registry)
    for state_name, count in shown.nodes.items():
        nodes.labels(state=state_name).set(count)
    text = generate_latest(registry) + generate_latest(cloud.metrics.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
