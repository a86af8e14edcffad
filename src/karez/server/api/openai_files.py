"""Files and batches over HTTP as OpenAI's clients ask for them; the gateway passes them on."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.datastructures import UploadFile

from karez.core.errors import BadRequest, TooLarge
from karez.core.identity import DEFAULT_PROJECT, Role
from karez.server.api.artifacts import receive_pieces, send_blob
from karez.server.api.authorization import CloudDep, Who, allow
from karez.server.api.door import Message, Receive
from karez.server.services.batches import BatchRequest
from karez.server.services.openai_objects import page, show_file

router = APIRouter(prefix="/openai", tags=["openai"])
MAX_FILE_BYTES: Final = 512 << 20
MAX_FIELDS: Final = 16
After = Annotated[str, Query(max_length=64)]


@router.post("/files", **allow(Role.MEMBER))
async def send_file(request: Request, cloud: CloudDep, who: Who) -> dict[str, Any]:
    """Store a file of a form, with its purpose."""
    limited = Request(request.scope, _Limited(request.receive, MAX_FILE_BYTES))
    async with limited.form(max_files=1, max_fields=MAX_FIELDS) as form:
        file, purpose = form.get("file"), form.get("purpose", "user_data")
        if not isinstance(file, UploadFile) or not isinstance(purpose, str):
            raise BadRequest(problem="the form has a file and a purpose, as multipart/form-data")
        project = cloud.permissions.project_of(who, DEFAULT_PROJECT)
        begin = partial(cloud.artifacts.writer, who, project, "")
        entry = await receive_pieces(_pieces(file), begin)
        return show_file(cloud.batches.register(who, entry, file.filename or "file", purpose))


async def _pieces(file: UploadFile) -> AsyncIterator[bytes]:
    while piece := await file.read(1 << 20):
        yield piece


@router.get("/files", **allow(Role.VIEWER))
def list_files(
    cloud: CloudDep,
    who: Who,
    purpose: Annotated[str, Query(max_length=64)] = "",
    after: After = "",
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Annotated[str, Query(pattern="asc|desc")] = "desc",
) -> dict[str, Any]:
    """The files you may see."""
    found = list(cloud.batches.files(who, purpose))
    return page(found[::-1] if order == "asc" else found, show_file, after=after, limit=limit)


@router.get("/files/{file}", **allow(Role.VIEWER))
def show_one_file(file: str, cloud: CloudDep, who: Who) -> dict[str, Any]:
    """One file."""
    return show_file(cloud.batches.file(who, file))


@router.get("/files/{file}/content", **allow(Role.VIEWER))
def file_content(file: str, cloud: CloudDep, who: Who) -> StreamingResponse:
    """The bytes of a file."""
    return send_blob(cloud, cloud.batches.file(who, file).spec.files[0].sha256)


@router.delete("/files/{file}", **allow(Role.MEMBER))
def remove_file(file: str, cloud: CloudDep, who: Who) -> dict[str, Any]:
    """Remove a file that nothing active uses."""
    cloud.batches.remove(who, file)
    return {"id": file, "object": "file", "deleted": True}


@router.post("/batches", **allow(Role.MEMBER))
def create_batch(
    asked: BatchRequest,
    cloud: CloudDep,
    who: Who,
    idempotency_key: Annotated[str, Header(max_length=200)] = "",
) -> dict[str, Any]:
    """Answer the requests of a file, within a time and behind everything else."""
    made = cloud.batches.create(who, asked, idempotency_key=idempotency_key)
    return cloud.batches.show(made)


@router.get("/batches", **allow(Role.VIEWER))
def list_batches(
    cloud: CloudDep,
    who: Who,
    after: After = "",
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """The batches you may see, newest first."""
    found = cloud.batches.batches(who)
    return page(found, cloud.batches.show, after=after, limit=limit)


@router.get("/batches/{batch}", **allow(Role.VIEWER))
def show_batch(batch: str, cloud: CloudDep, who: Who) -> dict[str, Any]:
    """One batch."""
    return cloud.batches.show(cloud.batches.batch(who, batch))


@router.post("/batches/{batch}/cancel", **allow(Role.MEMBER))
def cancel_batch(batch: str, cloud: CloudDep, who: Who) -> dict[str, Any]:
    """End a batch; what has been answered stays."""
    return cloud.batches.show(cloud.batches.cancel(who, batch))


class _Limited:
    """Receives a body of limited size."""

    def __init__(self, receive: Receive, limit_bytes: int) -> None:
        self._receive, self._limit, self._left = receive, limit_bytes, limit_bytes

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise TooLarge(limit_bytes=self._limit)
        return message
