"""Routes that nodes and the gateway call."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import StreamingResponse

from karez.core.api_models import JoinConfig
from karez.core.artifacts import FileEntry
from karez.core.errors import ProtocolMismatch
from karez.core.identity import Role
from karez.core.messages.wire import PROTOCOL_HEADER, protocol_mismatch
from karez.core.routing import GatewayLoad, Table
from karez.core.usage import Call
from karez.core.validation import FORBID
from karez.server.api.artifacts import Digest, receive_blob, send_blob
from karez.server.api.authorization import CloudDep, Who, allow
from karez.server.services.gateway_table import build_gateway_table

router = APIRouter(tags=["internal"])


@dataclass(frozen=True, slots=True, kw_only=True)
class JoiningHost:
    """Who joins."""

    __pydantic_config__: ClassVar[Any] = FORBID

    name: str


def check_protocol(protocol: Annotated[str, Header(alias=PROTOCOL_HEADER)] = "") -> None:
    """Refuse a node or gateway of another release.

    Raises:
        ProtocolMismatch: Its protocol has another number, or none.
    """
    found = int(protocol) if protocol.isdecimal() else protocol or None
    if problem := protocol_mismatch(found):
        raise ProtocolMismatch(problem=problem)


def allow_same_release(role: Role) -> dict[str, Any]:
    """Arguments for a route that needs `role`, and a caller of the same protocol."""
    guarded = allow(role)
    guarded["dependencies"].append(Depends(check_protocol))
    return guarded


@router.get("/node/join", **allow_same_release(Role.NODE))
def join_config(request: Request) -> JoinConfig:
    """How a host with a node key joins the pool."""
    config: JoinConfig = request.app.state.join_config
    return config


@router.post("/node/join", **allow_same_release(Role.JOIN))
def join_once(request: Request, host: JoiningHost, cloud: CloudDep, who: Who) -> JoinConfig:
    """How a host joins the pool, and a key of its own, for its token: that is good for once."""
    config: JoinConfig = request.app.state.join_config
    return replace(config, node_key=cloud.access.exchange(who, host.name))


@router.get("/node/blobs/{digest}", **allow(Role.NODE))
def node_blob(digest: Digest, cloud: CloudDep) -> StreamingResponse:
    """A blob, for a node that lays out a process's inputs."""
    return send_blob(cloud, digest)


@router.put("/node/blobs/{digest}", status_code=201, **allow(Role.NODE))
async def node_put_blob(digest: Digest, request: Request, cloud: CloudDep) -> FileEntry:
    """A blob from a node that gathers a process's outputs."""
    return await receive_blob(request, partial(cloud.blobs.writer, expect=digest))


@router.get("/gateway/table", **allow_same_release(Role.GATEWAY))
def gateway_table(cloud: CloudDep) -> Table:
    """The keys and replicas that the gateway routes by."""
    return build_gateway_table(cloud.store, cloud.clock.now(), cloud.services.engines)


@router.post("/gateway/load", status_code=204, **allow_same_release(Role.GATEWAY))
def record_load(load: GatewayLoad, cloud: CloudDep) -> None:
    """Record how many requests each service and replica has now."""
    loads = cloud.pool.loads
    loads.record(load, cloud.clock.now())
    if loads.awaits():
        cloud.pool.wake()


@router.post("/gateway/calls", status_code=204, **allow_same_release(Role.GATEWAY))
def record_calls(calls: Sequence[Call], cloud: CloudDep) -> None:
    """Record calls for usage; recording a call twice is harmless."""
    cloud.store.usage.add_calls(calls)
