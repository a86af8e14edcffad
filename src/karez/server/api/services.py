"""Services over HTTP."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Body, Header, Query

from karez.core.api_models import LogPiece
from karez.core.fit import FitReport
from karez.core.identity import Role
from karez.core.services import Service, ServiceSpec
from karez.server.api.authorization import CloudDep, Who, allow

router = APIRouter(prefix="/services", tags=["services"])

_EXAMPLE = {"name": "router", "model": "intent-router-q8", "replicas": 1}


@router.post("", status_code=201, **allow(Role.MEMBER))
def deploy_service(
    spec: Annotated[ServiceSpec, Body(examples=[_EXAMPLE])],
    cloud: CloudDep,
    who: Who,
    idempotency_key: Annotated[str, Header()] = "",
) -> Service:
    """Deploy a model. It answers at the gateway under its name once a replica is ready."""
    return cloud.services.deploy(who, spec, idempotency_key=idempotency_key)


@router.post("/fit", **allow(Role.VIEWER))
def check_fit(
    spec: Annotated[ServiceSpec, Body(examples=[_EXAMPLE])], cloud: CloudDep, who: Who
) -> FitReport:
    """The engine that would serve a model, and the memory of a replica part by part."""
    return cloud.services.fit(who, spec)


@router.get("", **allow(Role.VIEWER))
def list_services(cloud: CloudDep, who: Who, ended: bool = False) -> Sequence[Service]:
    """The services you may see, newest first."""
    return cloud.services.list(who, ended=ended)


@router.get("/{service}", **allow(Role.VIEWER))
def show_service(service: str, cloud: CloudDep, who: Who) -> Service:
    """One service, by id or by name."""
    return cloud.services.get(who, service)


@router.put("/{service}", **allow(Role.MEMBER))
def update_service(
    service: str,
    spec: Annotated[ServiceSpec, Body(examples=[_EXAMPLE])],
    cloud: CloudDep,
    who: Who,
) -> Service:
    """Ask something else of a service: its replicas are replaced one after the other.

    The first is a canary. If it fails, or answers worse than those of before, the update is undone.
    """
    return cloud.services.update(who, service, spec)


@router.post("/{service}/stop", **allow(Role.MEMBER))
def stop_service(service: str, cloud: CloudDep, who: Who) -> Service:
    """Request a service's end."""
    return cloud.services.stop(who, service)


@router.get("/{service}/logs", **allow(Role.VIEWER))
def service_logs(service: str, cloud: CloudDep, who: Who) -> list[str]:
    """The names of a service's log files."""
    return cloud.logs.names(cloud.services.get(who, service).id)


@router.get("/{service}/logs/{name}", **allow(Role.VIEWER))
def service_log(
    service: str,
    name: str,
    cloud: CloudDep,
    who: Who,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=4 << 20)] = 1 << 20,
) -> LogPiece:
    """A piece of one log file."""
    return cloud.logs.read(cloud.services.get(who, service).id, name, offset, limit)
