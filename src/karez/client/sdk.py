"""The Python SDK: `karez.Client()` and `karez.AsyncClient()`, with the same words."""

import asyncio
import hashlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from karez.client import calls
from karez.client.address import find_address
from karez.client.answers import may_repeat, read, request_of
from karez.client.calls import Call
from karez.core.artifacts import Artifact, ArtifactKind, ArtifactSpec, FileEntry, Lineage
from karez.core.errors import BadRequest, Failed, Unreachable
from karez.core.workloads import ENDED, Job, JobSpec, Service, ServiceSpec, State

T = TypeVar("T")
PREFIX = "/api/v1"
PATIENCE_S = 20.0
"""How long a call that may be repeated waits for a control that is being restarted."""
STRANGER_PATIENCE_S = 1.0
"""How long it waits for one that was never heard."""
_IGNORED = {".git", "__pycache__", ".venv", "node_modules", ".mypy_cache", ".pytest_cache"}


class Client:
    """A cloud's API. Raises the errors of karez.core.errors."""

    def __init__(self, url: str = "", key: str = "", *, patience_s: float = 0.0) -> None:
        """Arguments win over KAREZ_URL and KAREZ_KEY, and these over the local cloud's files.

        `patience_s` 0 is 20 s for a cloud that runs here or was heard, else 1 s.
        """
        self.address = find_address(url, key)
        known_s = PATIENCE_S if self.address.is_up else STRANGER_PATIENCE_S
        self._patience_s = patience_s or known_s
        self._http = httpx.Client(base_url=self.address.url + PREFIX, timeout=60.0)

    def __enter__(self) -> Self:
        """Use as a context manager to close connections."""
        return self

    def __exit__(
        self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        """Close connections."""
        self._http.close()

    def call(self, call: Call[T]) -> T:
        """Any call of karez.client.calls."""
        deadline = time.monotonic() + self._patience_s  # noqa: TID251 - the client's own clock
        while True:
            try:
                answer = self._http.request(
                    call.method, call.path, **request_of(call, self.address.key)
                )
                self._patience_s = max(self._patience_s, PATIENCE_S)  # it was heard
                return read(call, answer)
            except httpx.TransportError as error:
                late = time.monotonic() > deadline  # noqa: TID251 - as above
                if late or not may_repeat(call):
                    raise Unreachable(what_is_it="karez", address=self.address.url) from error
                time.sleep(0.2)  # noqa: TID251 - as above

    def submit(self, spec: JobSpec) -> Job:
        """Queue a job; a connection lost on the way never queues it twice."""
        return self.call(calls.submit(spec, uuid.uuid4().hex))

    def job(self, ident: str) -> Job:
        """One job by id or name."""
        return self.call(calls.job(ident))

    def jobs(self, *, states: Sequence[State] = (), limit: int = 100) -> list[Job]:
        """Jobs, newest first."""
        return self.call(calls.jobs(states, limit))

    def wait(
        self, ident: str, *, watch: Callable[[Job], None] | None = None, limit_s: float = 3600.0
    ) -> Job:
        """Until a job has ended. Raises Failed if it did not succeed."""
        deadline = time.monotonic() + limit_s  # noqa: TID251 - the client's own clock
        while True:
            job = self.job(ident)
            if watch is not None:
                watch(job)
            if job.state in ENDED:
                return _succeeded(job)
            if time.monotonic() > deadline:  # noqa: TID251 - as above
                raise Failed(noun="job", name=ident, reason=f"not done after {limit_s:.0f} s.")
            time.sleep(0.25)  # noqa: TID251 - as above

    def deploy(self, spec: ServiceSpec) -> Service:
        """Deploy a model."""
        return self.call(calls.deploy(spec, uuid.uuid4().hex))

    def wait_ready(self, ident: str, *, limit_s: float = 120.0) -> Service:
        """Until all replicas of a service are ready. Raises Failed."""
        deadline = time.monotonic() + limit_s  # noqa: TID251 - the client's own clock
        while True:
            service = self.call(calls.service(ident))
            ready = [view for view in service.status.ranks if view.state == "ready"]
            if len(ready) == service.spec.replicas:
                return service
            late = time.monotonic() > deadline  # noqa: TID251 - as above
            if service.state in ENDED or late:
                reason = service.status.reason or f"not ready after {limit_s:.0f} s."
                raise Failed(noun="service", name=ident, reason=reason)
            time.sleep(0.2)  # noqa: TID251 - as above

    def upload(self, path: str | Path, *, name: str, kind: ArtifactKind, **more: Any) -> Artifact:
        """Register a file or folder as an artifact. Bytes that are there already are not sent.

        Args:
            path: File or folder.
            name: What to call it.
            kind: What it is.
            more: project, format, source, licence.

        Raises:
            BadRequest: Nothing there.
        """
        found = list(local_files(Path(path)))
        if not found:
            raise BadRequest(problem=f"there are no files at {path}")
        for entry, file in found:
            if not self.call(calls.has_blob(entry.sha256)):
                self._put(entry, file)
        return self.call(calls.register(_spec(found, name, kind, more)))

    def _put(self, entry: FileEntry, file: Path) -> None:
        call = calls.put_blob(entry.sha256)
        with file.open("rb") as stream:
            arguments = request_of(call, self.address.key)
            arguments.pop("json")
            answer = self._http.request(call.method, call.path, content=stream, **arguments)
        read(call, answer)

    def follow_logs(self, noun: str, ident: str, *, follow: bool) -> Iterator[tuple[str, str]]:
        """(file, text) pieces of a workload's output; with `follow` until it has ended."""
        offsets: dict[str, int] = {}
        while True:
            ended = self._ended(noun, ident)
            for name in self.call(calls.log_names(noun, ident)):
                while True:
                    piece = self.call(calls.log(noun, ident, name, offsets.get(name, 0)))
                    offsets[name] = piece.next
                    if not piece.text:
                        break
                    yield name, piece.text
            if ended or not follow:
                return
            time.sleep(0.5)  # noqa: TID251 - the client's own clock

    def _ended(self, noun: str, ident: str) -> bool:
        if noun == "services":
            return self.call(calls.service(ident)).state in ENDED
        return self.job(ident).state in ENDED


class AsyncClient:
    """As Client, for asyncio."""

    def __init__(self, url: str = "", key: str = "", *, patience_s: float = 0.0) -> None:
        """See Client."""
        self.address = find_address(url, key)
        known_s = PATIENCE_S if self.address.is_up else STRANGER_PATIENCE_S
        self._patience_s = patience_s or known_s
        self._http = httpx.AsyncClient(base_url=self.address.url + PREFIX, timeout=60.0)

    async def __aenter__(self) -> Self:
        """Use as a context manager to close connections."""
        return self

    async def __aexit__(
        self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        """Close connections."""
        await self._http.aclose()

    async def call(self, call: Call[T]) -> T:
        """Any call of karez.client.calls."""
        deadline = time.monotonic() + self._patience_s  # noqa: TID251 - the client's own clock
        while True:
            try:
                answer = await self._http.request(
                    call.method, call.path, **request_of(call, self.address.key)
                )
                self._patience_s = max(self._patience_s, PATIENCE_S)  # it was heard
                return read(call, answer)
            except httpx.TransportError as error:
                late = time.monotonic() > deadline  # noqa: TID251 - as above
                if late or not may_repeat(call):
                    raise Unreachable(what_is_it="karez", address=self.address.url) from error
                await asyncio.sleep(0.2)

    async def submit(self, spec: JobSpec) -> Job:
        """See Client."""
        return await self.call(calls.submit(spec, uuid.uuid4().hex))

    async def job(self, ident: str) -> Job:
        """See Client."""
        return await self.call(calls.job(ident))

    async def jobs(self, *, states: Sequence[State] = (), limit: int = 100) -> list[Job]:
        """See Client."""
        return await self.call(calls.jobs(states, limit))

    async def wait(self, ident: str) -> Job:
        """See Client."""
        while True:
            job = await self.job(ident)
            if job.state in ENDED:
                return _succeeded(job)
            await asyncio.sleep(0.25)

    async def deploy(self, spec: ServiceSpec) -> Service:
        """See Client."""
        return await self.call(calls.deploy(spec, uuid.uuid4().hex))


def local_files(path: Path) -> Iterator[tuple[FileEntry, Path]]:
    """The files of a folder, or the one file, with their digests. Caches and .git are left out."""
    if path.is_file():
        yield _entry(path, path.name), path
        return
    for file in sorted(path.rglob("*")):
        parts = set(file.relative_to(path).parts)
        if file.is_file() and not parts & _IGNORED:
            yield _entry(file, str(file.relative_to(path))), file


def _entry(file: Path, name: str) -> FileEntry:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileEntry(path=name, sha256=digest, size_bytes=file.stat().st_size)


def _spec(
    found: Sequence[tuple[FileEntry, Path]], name: str, kind: ArtifactKind, more: Mapping[str, str]
) -> ArtifactSpec:
    lineage = Lineage(source=more.get("source", ""), licence=more.get("licence", ""))
    return ArtifactSpec(
        name=name,
        kind=kind,
        files=tuple(entry for entry, _ in found),
        project=more.get("project", "default"),
        format=more.get("format", ""),
        lineage=lineage,
    )


def _succeeded(job: Job) -> Job:
    if job.state != State.SUCCEEDED:
        reason = f"{job.status.end or job.state}: {job.status.reason}"
        raise Failed(noun="job", name=job.spec.name, reason=reason)
    return job
