"""Routes that nodes and the gateway call."""

from collections.abc import Sequence

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from karez.core.api_models import JoinConfig
from karez.core.artifacts import FileEntry
from karez.core.identity import Role
from karez.core.routing import Table
from karez.core.usage import Call
from karez.server.api.artifacts import receive_blob, send_blob
from karez.server.api.authorization import CloudDep, allow
from karez.server.services.gateway_table import build_gateway_table

router = APIRouter(tags=["internal"])


@router.get("/node/join", **allow(Role.NODE))
def join_config(request: Request) -> JoinConfig:
    """How a host with a node key joins the pool."""
    config: JoinConfig = request.app.state.join_config
    return config


@router.get("/node/blobs/{digest}", **allow(Role.NODE))
def node_blob(digest: str, cloud: CloudDep) -> StreamingResponse:
    """A blob, for a node that lays out a process's inputs."""
    return send_blob(cloud, digest)


@router.put("/node/blobs/{digest}", status_code=201, **allow(Role.NODE))
async def node_put_blob(digest: str, request: Request, cloud: CloudDep) -> FileEntry:
    """A blob from a node that gathers a process's outputs."""
    return await receive_blob(request, cloud, digest)


@router.get("/gateway/table", **allow(Role.GATEWAY))
def gateway_table(cloud: CloudDep) -> Table:
    """The keys and replicas that the gateway routes by."""
    return build_gateway_table(cloud.store)


@router.post("/gateway/calls", status_code=204, **allow(Role.GATEWAY))
def record_calls(calls: Sequence[Call], cloud: CloudDep) -> None:
    """Record calls for usage; recording a call twice is harmless."""
    cloud.store.usage.add_calls(calls)
