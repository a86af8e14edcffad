"""Artifacts over HTTP: upload the bytes, then register what they are."""

from collections.abc import AsyncIterable, Callable, Iterator, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar

import anyio
import anyio.to_thread
from fastapi import APIRouter, Body, Path, Query, Request
from fastapi.responses import StreamingResponse

from karez.core.artifacts import Artifact, ArtifactKind, ArtifactSpec, FileEntry
from karez.core.errors import NotFound, TooManyRequests
from karez.core.identity import DEFAULT_PROJECT, Role
from karez.core.ports import BlobWriter
from karez.server.api.authorization import CloudDep, Who, allow
from karez.server.services.cloud import Cloud

router = APIRouter(tags=["artifacts"])
_CHUNK = 1 << 20
MAX_UPLOADS = 512
"""Uploads that are received at once; most of them wait for their senders."""
_UPLOADS = anyio.Semaphore(MAX_UPLOADS)
_WRITERS = anyio.CapacityLimiter(8)
"""Threads that write: not those that answer everything else."""
T = TypeVar("T")
InProject = Annotated[str, Query(description="Project of what is sent.")]
Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]


@router.put("/blobs/{digest}", status_code=201, **allow(Role.MEMBER))
async def put_blob(
    digest: Digest,
    request: Request,
    cloud: CloudDep,
    who: Who,
    project: InProject = DEFAULT_PROJECT,
) -> FileEntry:
    """Store the request's body, whose SHA-256 must be `digest`, for a project."""
    return await receive_blob(request, partial(cloud.artifacts.writer, who, project, digest))


@router.get("/blobs/{digest}/exists", **allow(Role.MEMBER))
def has_blob(
    digest: Digest, cloud: CloudDep, who: Who, project: InProject = DEFAULT_PROJECT
) -> bool:
    """Whether the project has these bytes here already, so that an upload can be saved."""
    return not cloud.artifacts.missing(who, project, [digest])


@router.post("/blobs/missing", **allow(Role.MEMBER))
def missing_blobs(
    digests: Annotated[list[Digest], Body(max_length=10_000)],
    cloud: CloudDep,
    who: Who,
    project: InProject = DEFAULT_PROJECT,
) -> list[str]:
    """Those of these digests whose bytes the project has to send."""
    return cloud.artifacts.missing(who, project, digests)


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


async def receive_blob(request: Request, begin: Callable[[], BlobWriter]) -> FileEntry:
    """The body of a request into the writer that `begin` opens. No thread waits for the sender."""
    return await receive_pieces(request.stream(), begin)


async def receive_pieces(
    pieces: AsyncIterable[bytes], begin: Callable[[], BlobWriter]
) -> FileEntry:
    """Pieces of a file into the writer that `begin` opens. Raises TooManyRequests."""
    if _UPLOADS.value == 0:
        raise TooManyRequests(limit=f"{MAX_UPLOADS} uploads at once", retry_after_s=5)
    async with _UPLOADS:
        return await _receive(pieces, await _in_thread(begin))


async def _receive(pieces: AsyncIterable[bytes], writer: BlobWriter) -> FileEntry:
    try:
        held = bytearray()
        async for chunk in pieces:
            held += chunk
            if len(held) >= _CHUNK:
                await _in_thread(writer.write, bytes(held))
                held.clear()
        if held:
            await _in_thread(writer.write, bytes(held))
        return await _in_thread(writer.finish)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await _in_thread(writer.abort)
        raise


async def _in_thread(act: Callable[..., T], *args: Any) -> T:
    return await anyio.to_thread.run_sync(act, *args, limiter=_WRITERS)
