"""Artifacts over HTTP: upload the bytes, then register what they are."""

from collections.abc import Iterator, Sequence
from typing import Annotated, BinaryIO, cast

import anyio.from_thread
import anyio.to_thread
from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import StreamingResponse

from karez.core.artifacts import Artifact, ArtifactKind, ArtifactSpec, FileEntry
from karez.core.errors import NotFound
from karez.core.identity import Role
from karez.server.api.authorization import CloudDep, Who, allow
from karez.server.services.cloud import Cloud

router = APIRouter(tags=["artifacts"])
_CHUNK = 1 << 20


@router.put("/blobs/{digest}", status_code=201, **allow(Role.MEMBER))
async def put_blob(digest: str, request: Request, cloud: CloudDep) -> FileEntry:
    """Store the request's body, whose SHA-256 must be `digest`."""
    return await receive_blob(request, cloud, digest)


@router.get("/blobs/{digest}/exists", **allow(Role.MEMBER))
def has_blob(digest: str, cloud: CloudDep) -> bool:
    """Whether these bytes are here already, so that an upload can be saved."""
    return cloud.blobs.has(digest)


@router.post("/blobs/missing", **allow(Role.MEMBER))
def missing_blobs(
    digests: Annotated[list[str], Body(max_length=10_000)], cloud: CloudDep
) -> list[str]:
    """Those of these digests whose bytes are not here, so that only they are uploaded."""
    return [digest for digest in digests if not cloud.blobs.has(digest)]


@router.post("/artifacts", status_code=201, **allow(Role.MEMBER))
def register_artifact(spec: ArtifactSpec, cloud: CloudDep, who: Who) -> Artifact:
    """Register files that were uploaded as one artifact."""
    return cloud.artifacts.register(who, spec)


@router.get("/artifacts", **allow(Role.VIEWER))
def list_artifacts(
    cloud: CloudDep, who: Who, kind: Annotated[list[ArtifactKind] | None, Query()] = None
) -> Sequence[Artifact]:
    """The artifacts you may see, newest first."""
    return cloud.artifacts.list(who, kind or [])


@router.get("/artifacts/{artifact}", **allow(Role.VIEWER))
def show_artifact(artifact: str, cloud: CloudDep, who: Who) -> Artifact:
    """One artifact, by id or by name (the newest of that name)."""
    return cloud.artifacts.get(who, artifact)


@router.get("/artifacts/{artifact}/files/{path:path}", **allow(Role.VIEWER))
def artifact_file(artifact: str, path: str, cloud: CloudDep, who: Who) -> StreamingResponse:
    """The bytes of one of its files."""
    for file in cloud.artifacts.get(who, artifact).spec.files:
        if file.path == path:
            return send_blob(cloud, file.sha256)
    raise NotFound(noun="file", name=path)


@router.delete("/artifacts/{artifact}", status_code=204, **allow(Role.MEMBER))
def remove_artifact(artifact: str, cloud: CloudDep, who: Who) -> None:
    """Forget an artifact that nothing active uses."""
    cloud.artifacts.remove(who, artifact)


def send_blob(cloud: Cloud, digest: str) -> StreamingResponse:
    """A blob as a response. Raises NotFound."""
    file = cloud.blobs.open(digest)

    def chunks() -> Iterator[bytes]:
        with file:
            while chunk := file.read(_CHUNK):
                yield chunk

    return StreamingResponse(chunks(), media_type="application/octet-stream")


async def receive_blob(request: Request, cloud: Cloud, digest: str) -> FileEntry:
    """The body of a request into the blob store, off the event loop."""
    stream = cast("BinaryIO", _Body(request))
    return await anyio.to_thread.run_sync(cloud.artifacts.put_blob, stream, digest)


class _Body:
    """A request's body as a readable stream for a worker thread."""

    def __init__(self, request: Request) -> None:
        self._chunks = request.stream().__aiter__()

    def read(self, _size: int = -1) -> bytes:
        while True:
            try:
                chunk: bytes = anyio.from_thread.run(self._next)
            except StopAsyncIteration:
                return b""
            if chunk:
                return chunk

    async def _next(self) -> bytes:
        return bytes(await self._chunks.__anext__())
