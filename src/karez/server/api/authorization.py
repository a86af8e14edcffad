"""Authorization of routes: every route names its role; everything else is denied."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute

from karez.core.errors import NotAllowed, NotSignedIn
from karez.core.identity import Principal, Role, includes
from karez.server.services.cloud import Cloud

PUBLIC = "public"
UNGUARDED = "UNGUARDED"
_MARK = "x-karez-role"


DEPRECATED_AT = 1795824000
"""2026-11-28, UTC: when paths of karez 0.1 got new names."""


def cloud_of(request: Request) -> Cloud:
    """The services that wiring put on the app."""
    cloud: Cloud = request.app.state.cloud
    return cloud


def principal_of(request: Request) -> Principal:
    """The principal of a request, already checked against the route's role."""
    who: Principal = request.scope["state"]["principal"]
    return who


CloudDep = Annotated[Cloud, Depends(cloud_of)]
Who = Annotated[Principal, Depends(principal_of)]


def allow(role: Role) -> dict[str, Any]:
    """Arguments for a route that needs `role`; the door has looked the key up."""
    return {"dependencies": [Depends(_checker(role))], "openapi_extra": {_MARK: role.value}}


def old_name(role: Role) -> dict[str, Any]:
    """Arguments for a path of an older release: it answers for one more, and is not in the docs."""
    guarded = allow(role)
    guarded["dependencies"].append(Depends(_announce_old_name))
    return {**guarded, "include_in_schema": False, "deprecated": True}


def _announce_old_name(response: Response) -> None:
    response.headers["Deprecation"] = f"@{DEPRECATED_AT}"  # RFC 9745


def public() -> dict[str, Any]:
    """Arguments for a route that anyone may call."""
    return {"openapi_extra": {_MARK: PUBLIC, "security": []}}


def _checker(role: Role) -> Callable[[Request], None]:
    def check(request: Request) -> None:
        who: Principal | None = request.scope["state"].get("principal")
        if who is None:
            raise NotSignedIn
        if not includes(who.role, role):
            raise NotAllowed(needed=role, held=who.role, project=who.project)

    return check


def roles(routers: Iterable[APIRouter]) -> dict[str, str]:
    """`METHOD /path` -> the role it needs; `UNGUARDED` for a route that names none."""
    role_of: dict[str, str] = {}
    for router in routers:
        for route in router.routes:
            assert isinstance(route, APIRoute), f"{route} is an unsupported kind of route"
            role = str((route.openapi_extra or {}).get(_MARK, UNGUARDED))
            if role != PUBLIC and not route.dependencies:
                role = UNGUARDED
            for method in route.methods or ():
                role_of[f"{method} {route.path}"] = role
    return role_of
