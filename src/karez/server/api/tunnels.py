"""Tunnels into running jobs over HTTP: bytes in requests, bytes in answers that wait for them."""

from typing import Annotated

import anyio
import anyio.to_thread
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import Response

from karez.core.codec import MAX_INTEGER
from karez.core.errors import BadRequest
from karez.core.identity import Role
from karez.core.tunnels import MAX_PIECE, Terminal, Tunnel, TunnelSpec
from karez.server.api.authorization import CloudDep, Who, allow

router = APIRouter(prefix="/jobs/{job}/tunnels", tags=["tunnels"])
_WAITING = anyio.CapacityLimiter(256)
"""Threads for answers that wait: not those that answer everything else."""
Offset = Annotated[int, Query(ge=0, le=MAX_INTEGER, description="Of the first byte.")]


class _Place:
    """Where a piece of input belongs."""

    def __init__(
        self,
        offset: Offset,
        end: Annotated[bool, Query(description="Whether this is the last input.")] = False,
    ) -> None:
        self.offset, self.end = offset, end


@router.post("", status_code=201, **allow(Role.MEMBER))
def open_tunnel(
    job: str,
    spec: TunnelSpec,
    request: Request,
    cloud: CloudDep,
    who: Who,
    idempotency_key: Annotated[str, Header()] = "",
) -> Tunnel:
    """Open a shell beside a rank of a job, a connection to one of its ports, or a copy of files.

    A tunnel that nobody reads for a minute is closed.
    """
    request.scope["state"]["detail"] = spec.show()
    return cloud.tunnels.open(who, job, spec, idempotency_key=idempotency_key)


@router.post("/{tunnel}/input", **allow(Role.MEMBER))
async def tunnel_input(
    job: str,
    tunnel: str,
    request: Request,
    cloud: CloudDep,
    who: Who,
    place: Annotated[_Place, Depends()],
) -> int:
    """Send bytes; returns the offset of the first one that was not taken yet."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_PIECE:
            raise BadRequest(problem=f"more than {MAX_PIECE:,} bytes", fix="Send smaller pieces.")

    def write() -> int:
        return cloud.tunnels.write(who, job, tunnel, place.offset, bytes(data), end=place.end)

    return await anyio.to_thread.run_sync(write, limiter=_WAITING)


@router.get("/{tunnel}/output", response_class=Response, **allow(Role.MEMBER))
async def tunnel_output(
    job: str, tunnel: str, cloud: CloudDep, who: Who, offset: Offset
) -> Response:
    """Bytes from an offset on, behind a line of JSON; waits up to a second for some."""

    def read() -> bytes:
        return cloud.tunnels.read(who, job, tunnel, offset).pack()

    packed = await anyio.to_thread.run_sync(read, limiter=_WAITING)
    return Response(packed, media_type="application/octet-stream")


@router.put("/{tunnel}/terminal", status_code=204, **allow(Role.MEMBER))
def resize_tunnel(job: str, tunnel: str, terminal: Terminal, cloud: CloudDep, who: Who) -> None:
    """Tell a shell of another size of its terminal."""
    cloud.tunnels.resize(who, job, tunnel, terminal)


@router.delete("/{tunnel}", status_code=204, **allow(Role.MEMBER))
def close_tunnel(job: str, tunnel: str, cloud: CloudDep, who: Who) -> None:
    """Close a tunnel; a shell that still runs is ended."""
    cloud.tunnels.close(who, job, tunnel)
